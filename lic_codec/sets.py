"""Standard sets of test photographs, recognised by the digests of their pixels."""

from __future__ import annotations

from collections.abc import Set

# kodim01.png to kodim24.png, 768x512 or 512x768.
KODAK = frozenset(
    (
        "f7b57fcf359b695cc018b3bb77299ef94365154034035ad2f9865b5dd52c6a37",
        "106e47154c9715671dc00c53900f8acd7b7e8857452d69e751f93461a37a06bb",
        "97a69659de0d13dc8c521ddd7ee3638bd016ad9cb2bb771eb7e4787cd471be4d",
        "05f78c904a20f1d6a730ebf2f3893bbf89356ef52e7c435d17b2c67fb2a6fb97",
        "aa5251caaa803319ed8cc496d1635a5d13fd6a6984b581100ef76757020168b7",
        "6ea06d0ee4a4ab2febd57f1cf40f9640761f56167cfd4cd0d6b489afbaf15276",
        "cd9dd8fbd6b5cba5cf3bd4fbcc9760d4c5e82b140db242d55ddec782ddd42038",
        "3c32cbfa0eae5cff564fbd629164fe737c19130ed88636a19fed56d89cd0ef17",
        "d24d345b609963e2441ed0890bcbfafdaf6069b41161bbb6f2991dbff2fce4f8",
        "d3d5eed0e6a568ad4b8779ffc90a31630449a0fd41501df92225676a4341b1d8",
        "1c6f7139b1fd92ac7afd87bdcfbc700517c4c7a2580c3c5ce55bef0a15b54da9",
        "49185638689dabf45f1b504e8f483613c2e2d924900be8c868e2c4b52f244d37",
        "bee7a88ab366fec4f14988c771a35897d1d1f799be752750212e7a581486471e",
        "e0ccc0aeb7425f4bbc376662f140f887fac6020b72b3f80145842ed322b575ba",
        "6b3618412f7ab9f8d84398f3c2df9c731e69978e06c3dda3b6f340067683fadd",
        "32d36ddbce423802d5a9d40cd4e67de1e99b985703965efcc28b0418e0c4802c",
        "987a4bfb5d6b8e1263cefab9f7182450765a77eecd2c18a62e519bd0eff5d280",
        "54e31ab76ca6301ca4ea9cdabf5c0614d622524ec099f602f85f6d894e6df795",
        "0c6598455f85576ddf5d4d2878d315871b5fb14b093551212882481ca9c80cef",
        "033bf6571d1f669834763a9684e704f012e509c91d44ced6b990a8d1e4667277",
        "fd45a72745ec7a3458e6537b5303dae6316677eacd4eb5438df306aab47a5019",
        "6f57e5951cf19059f3d7bd66b906b6fc32bc7eb95f439e6793d22480889ec5b6",
        "41a4866adc5707e7d49ffe9716f319a9477cd7c91f623fb641cd3309388153f6",
        "784913098a3c215a26f77b29df007c430100730b08941730063db58e1dae9164",
    )
)
SETS = {"kodak": KODAK}


def set_of(digests: Set[str]) -> str | None:
    """The standard set that photographs of these digests are: all of it, and nothing else; None: no such set."""
    return next((name for name, known in SETS.items() if known == digests), None)
