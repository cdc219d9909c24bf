
# From here on the script is the same for all jobs.
say() { echo "slurm: $*"; }
refuse() {
    say "$1" >&2
    exit 2
}
# Whether Slurm is ending the job; while it sends its signal the state is SIGNALING.
over() {
    local state
    state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null)
    [[ -n $state && $state != RUNNING && $state != SIGNALING ]]
}

# The secrets, for this shell and what it starts; on each node, so that they travel nowhere.
secrets() {
    [[ -z $SECRETS ]] && return
    local mode
    mode=$(stat -Lc %a -- "$SECRETS") || refuse "slurm.secrets_file: no such file on $(hostname): $SECRETS"
    [[ $mode == *00 ]] || refuse "slurm.secrets_file: others may read it (mode $mode): chmod 600 $SECRETS"
    # whatever bash has to say of a line would show what is in it
    local line="[[:space:]]*(#.*|(export[[:space:]]+)?[A-Za-z_][A-Za-z0-9_]*=('[^']*'|\"[^\"]*\"|[^[:space:]'\"]*)[[:space:]]*)?"
    line=$(grep -nvxE -m1 -- "$line" "$SECRETS" | cut -d: -f1)
    [[ -z $line ]] || refuse "slurm.secrets_file: line $line is not NAME=VALUE, with quotes where the value has blanks"
    set -a
    . "$SECRETS" 2>/dev/null || refuse "slurm.secrets_file: bash cannot read it"
    set +a
}

# This node's own address, by its name; Debian gives a host's name to 127.0.1.1.
address() {
    local found
    found=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ {print $1; exit}')
    [[ -n $found ]] || found=$(hostname --all-ip-addresses | awk '{print $1}')
    echo "$found"
}

# An empty folder that is ours alone; the name can be guessed, so what somebody else has put there is not taken.
fresh() {
    rm -rf -- "$1" 2>/dev/null
    mkdir -m 700 -- "$1" || refuse "$1 on $(hostname) belongs to somebody else"
}

# Ends what was started with this folder as its TMPDIR, and removes it. Ray's daemons are in sessions of their own, and
# some lose their parent: the environment is what stays (SPT_NOENV: Ray's titles would overwrite it).
clear_away() {
    local files
    for _ in {1..20}; do
        mapfile -t files < <(grep -lzxF -- "TMPDIR=$1" /proc/[0-9]*/environ 2>/dev/null)
        ((${#files[@]})) || break
        for file in "${files[@]}"; do
            file=${file%/environ}
            kill -KILL "${file#/proc/}" 2>/dev/null
        done
        sleep 0.1
    done
    rm -rf -- "$1"
}

# Ray's head takes its time; asked for before it listens, Ray's own programs complain at length.
reach() {
    until (: <"/dev/tcp/$HEAD/$PORT") 2>/dev/null; do
        ((SECONDS < JOIN_S)) || refuse "no Ray at $HEAD:$PORT, seen from $(hostname), within $JOIN_S s"
        sleep 0.5
    done
}

# Ray's part of this node, until it ends, Slurm ends it, or standard input does: that is open while the batch shell lives.
node() {
    local temp="$TEMP.$SLURM_NODEID" own ray status words
    trap 'clear_away "$temp"; exit 143' TERM
    secrets
    own=$(address)
    fresh "$temp"
    mkdir -p -- "$NODE_DISK"
    words=(--block --disable-usage-stats --node-ip-address="$own" --num-cpus="$CPUS" --num-gpus="$GPUS")
    words+=(--temp-dir="$temp" --object-store-memory=268435456 --min-worker-port=0 --max-worker-port=0)
    if ((SLURM_NODEID == 0)); then
        words+=(--head --port="$PORT" --ray-client-server-port=$((PORT + 1)) --include-dashboard=false)
    else
        reach || exit
        words+=(--address="$HEAD:$PORT")
    fi
    TMPDIR="$temp" inside "$PYTHON" -m ray.scripts.scripts start "${words[@]}" </dev/null >"$temp/start.log" 2>&1 &
    ray=$!
    while kill -0 "$ray" 2>/dev/null; do
        read -r -t 1
        (($? == 1)) && break
    done
    if ! kill -0 "$ray" 2>/dev/null; then
        wait "$ray"
        status=$?
        say "Ray has ended on $(hostname), exit code $status:"
        tail -n 20 "$temp/start.log"
    fi
    clear_away "$temp"
    exit "${status:-0}"
}

joined() { reach && TMPDIR="$TEMP" RAY_ADDRESS="$HEAD:$PORT" inside "$PYTHON" -m clusters.slurm.joined "$NODES" "$JOIN_S"; }

driver() {
    secrets
    echo $$ >"$TEMP/driver"
    TMPDIR="$TEMP" RAY_ADDRESS="$HEAD:$PORT" inside_now "$PYTHON" "${SWEEP[@]}"
}

# SIGTERM, to this shell alone (B: of --signal): the time is nearly over, or another job wants the nodes. The sweep alone
# is told, Ray goes on while it saves.
heed() {
    if over; then
        ENDING=1
        exec 9>&-
        clear_away "$TEMP"
        return
    fi
    TOLD=1
    say "SIGTERM: the sweep saves its running trials"
    ((DRIVER)) && tell
}

# The sweep's own process, which says who it is as soon as it can.
tell() {
    until [[ -s $TEMP/driver ]]; do
        kill -0 "$DRIVER" 2>/dev/null || return
        sleep 0.1
    done
    kill -TERM "$(<"$TEMP/driver")" 2>/dev/null
}

# Until one of these processes, or both, have ended.
await_one() {
    while kill -0 "$1" 2>/dev/null && kill -0 "$2" 2>/dev/null; do wait -n "$1" "$2"; done
}

# Until the process has ended: a trap interrupts a wait.
await() {
    local status
    while :; do
        wait "$1"
        status=$?
        kill -0 "$1" 2>/dev/null || return $status
    done
}

TOLD=0 ENDING=0 CODE=1 DRIVER=0
TEMP=/tmp/lic-$SLURM_JOB_ID
PORT=$((20000 + SLURM_JOB_ID % 4000 * 3)) # below Linux's ephemeral ports
HEAD=$(address)
(secrets) || exit
cd -- "$ROOT" || refuse "the repository is not on $(hostname): $ROOT"
fresh "$TEMP"
trap 'clear_away "$TEMP"' EXIT
trap heed TERM
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token SPT_NOENV=1 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=2
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
[[ $PYTHON == */* ]] && export PATH="${PYTHON%/*}:$PATH" # ninja, which DeepSpeed calls, lies beside it

say "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST; Ray at $HEAD:$PORT"
# what the nodes are to know, as text in the environment; the token is there as well, and on no command line
LIC_KNOWN=$(
    declare -f say refuse secrets address fresh clear_away reach inside inside_now node joined driver
    declare -p ROOT SECRETS PYTHON NODES CPUS GPUS JOIN_S NODE_DISK SWEEP TEMP PORT HEAD
)
export LIC_KNOWN
known() { "${@:2}" bash -c 'eval "$LIC_KNOWN"; unset LIC_KNOWN; "$0"' "$1"; }

mkfifo -m 600 "$TEMP/open"
known node srun --export=ALL --overlap --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 \
    --cpus-per-task="$CPUS" --kill-on-bad-exit=1 "${STEP[@]}" <"$TEMP/open" &
RAY=$!
exec 9>"$TEMP/open"

known joined "${ON_FIRST[@]}" 9>&- &
JOINED=$!
await_one $JOINED $RAY
if ! kill -0 $RAY 2>/dev/null; then
    kill $JOINED 2>/dev/null
elif await $JOINED && ((TOLD == 0 && ENDING == 0)); then
    known driver "${ON_FIRST[@]}" 9>&- &
    DRIVER=$!
    ((TOLD)) && tell
    await_one $DRIVER $RAY
    if kill -0 $DRIVER 2>/dev/null && ((ENDING == 0)); then
        say "a node's Ray has ended, and the sweep with it; the same command goes on from the last rungs" >&2
        clear_away "$TEMP"
    fi
    await $DRIVER
    CODE=$?
fi
((TOLD && (DRIVER == 0 || CODE == 143))) && CODE=75 # told before it could listen
exec 9>&-
await $RAY
clear_away "$TEMP"
if ((CODE == 75 && ENDING == 0)) && ! over; then
    trap '' TERM
    say "saved; the job goes back into the queue and goes on from here"
    scontrol requeue "$SLURM_JOB_ID" || say "it could not be requeued: the same command goes on" >&2
fi
exit $CODE
