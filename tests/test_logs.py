"""Messages: the terminal's lines as they are, the run folder's file with time and level, credentials in neither."""

from __future__ import annotations

import errno
import io
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.logs import LOG_FILE, OutputError, log_file, logger, say, warn

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "


def lines(folder: Path) -> list[str]:
    return (folder / LOG_FILE).read_text().splitlines()


def test_the_terminal_has_the_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("BD-rate +1.50 %")
    logger.warning("left out: a.png")
    assert capsys.readouterr() == ("BD-rate +1.50 %\nleft out: a.png\n", "")


def test_the_file_has_time_and_level_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("first", "second"):
        with log_file(tmp_path):
            logger.info(line)
        logger.info("outside")
    with log_file(tmp_path):
        logger.warning("third")
    assert [re.sub(STAMP, "", line) for line in lines(tmp_path)] == ["INFO first", "INFO second", "WARNING third"]
    assert all(re.match(STAMP, line) for line in lines(tmp_path))
    assert capsys.readouterr().out.splitlines() == ["first", "outside", "second", "outside", "third"]


def test_what_ends_the_sweep_is_in_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), log_file(tmp_path):
        raise RuntimeError("no room")
    with pytest.raises(KeyboardInterrupt), log_file(tmp_path):
        raise KeyboardInterrupt("2 trials have not ended")
    first, second, *trace, last = lines(tmp_path)
    assert first.endswith("ERROR RuntimeError: no room") and second == "Traceback (most recent call last):" and trace
    assert last.endswith("ERROR KeyboardInterrupt: 2 trials have not ended")
    assert capsys.readouterr().out == ""


def test_no_credentials_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), log_file(tmp_path):
        logger.info("asked https://user:hunter2@host/a?key=hunter2 in vain")
        raise RuntimeError("https://user:hunter2@host/b")
    assert "asked https://***@host/a?*** in vain" in capsys.readouterr().out
    assert "https://***@host/b" in lines(tmp_path)[1] and "hunter2" not in "\n".join(lines(tmp_path))


def test_a_path_with_signs_of_a_url_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("report: file:///home/a@b/runs#1/report.html")
    assert capsys.readouterr().out == "report: file:///home/a@b/runs#1/report.html\n"


def test_without_a_local_folder_there_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    with log_file(None):
        logger.info("a line")
    assert capsys.readouterr().out == "a line\n"


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_file(tmp_path / "gone"):
        logger.info("first")
        logger.info("second")
    first, warning, second = capsys.readouterr().out.splitlines()
    assert (first, second) == ("first", "second")
    assert warning.startswith(f"log: {tmp_path}/gone/sweep.log is not written any more: ")


def test_a_terminal_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OutputError, match=r"^stdout: Broken pipe$"):
        logger.info("a line")


ODD = "two\nlines, \x1b[31mred, caf\udce9"
PLAIN = r"two\nlines, \x1b[31mred, caf\udce9"


@pytest.mark.parametrize("tell", [say, warn])
def test_a_message_is_one_line_whatever_it_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]
) -> None:
    with log_file(tmp_path):
        tell(ODD)
    assert capsys.readouterr().out == PLAIN + "\n"
    (line,) = lines(tmp_path)
    assert line.endswith(PLAIN)


def test_an_error_with_an_odd_name_reaches_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="x"), log_file(tmp_path):
        raise OSError("x caf\udce9")
    assert lines(tmp_path)[0].endswith(r"OSError: x caf\udce9")


def test_a_terminal_without_utf_8_gets_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    say("\u00e9 \u2192 caf\udce9")
    assert written.getvalue() == b"\xe9 \\u2192 caf\\udce9\n"


SAY = "import sys; from orchestrator.logs import exit_code, say; sys.exit(exit_code(lambda: say('a line') or 0))"
PUT = "import sys; from orchestrator.logs import exit_code, put; sys.exit(exit_code(lambda: put('text') or 0))"


@pytest.mark.parametrize("code", [SAY, PUT])
@pytest.mark.parametrize(
    ("stdout", "ended", "line"),
    [
        (">/dev/full", 1, "stdout: No space left on device\n"),
        ("> >(exec true)", 1, "stdout: Broken pipe\n"),
        (">&-", 0, ""),
    ],
)
def test_a_stdout_that_cannot_be_written_is_one_line(code: str, stdout: str, ended: int, line: str) -> None:
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    wait = "import time; time.sleep(0.3); "  # until the reader has gone
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {stdout}', sys.executable, wait + code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (ended, "", line)
