#!/bin/sh
# Workers as Slurm jobs, for `drivers.fleet = "command"`. An example: it was written from Slurm's manual and has not been run against
# a cluster here. A member is a job of the same name; the group is its comment.
#
# It needs sbatch, squeue and scancel in the PATH, and below: where the manager is, and a file with a worker's token that every node
# can read.
set -eu
MANAGER=${TIDEMILL_MANAGER:-https://tidemill.internal:8080}
TOKEN_FILE=${TIDEMILL_WORKER_TOKEN_FILE:-/etc/tidemill/worker.token}
PARTITION=${TIDEMILL_PARTITION:-batch}

# The first line of standard input says what a member offers; numbers only are taken from it.
number() { printf '%s' "$request" | sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p"; }
jobs_named() { squeue --noheader --me --states=PENDING,CONFIGURING,RUNNING,COMPLETING --name="$1" --format=%A; }

read -r request || true
call=$1
group=$2
case "$call" in
start)
    member=$3
    [ -z "$(jobs_named "$member")" ] || exit 0
    slots=$(number slots)
    megabytes=$(($(number memory) / 1048576))
    # SIGTERM a while before the time limit, to the worker itself: it drains.
    sbatch --quiet --partition="$PARTITION" --job-name="$member" --comment="tidemill-$group" \
        --cpus-per-task="$slots" --mem="${megabytes}M" --signal=TERM@300 --output="/tmp/$member.log" \
        --export=NONE --wrap="exec tidemill worker --manager '$MANAGER' --token-file '$TOKEN_FILE' --id '$member' --class '$group' --slots $slots --memory ${megabytes}MiB"
    ;;
stop)
    member=$3
    for job in $(jobs_named "$member"); do
        if [ "$4" = kill ]; then
            scancel --signal=KILL --full "$job"
        else
            # To the steps and the batch script alike; one that has no machine yet just goes.
            scancel --state=PENDING "$job"
            scancel --signal=TERM --full "$job"
        fi
    done
    ;;
list)
    # A job that is being configured has its machine, and counts as running when it runs.
    squeue --noheader --me --states=PENDING,CONFIGURING,RUNNING,COMPLETING --format='%j %T %k' |
        while read -r member state comment; do
            [ "$comment" = "tidemill-$group" ] || continue
            case "$state" in
            PENDING | CONFIGURING) word=waiting ;;
            *) word=running ;;
            esac
            printf '{"member":"%s","state":"%s"}\n' "$member" "$word"
        done
    ;;
*)
    echo "there is no call \`$call\`; there are start, stop and list" >&2
    exit 64
    ;;
esac
