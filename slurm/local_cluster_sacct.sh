#!/bin/sh
# Substitute for sacct on a cluster without accounting: answers from squeue, which keeps jobs for an hour here.
usage() {
    echo "sacct (substitute of the local cluster): it supports only 'sacct -o JobID,State,NodeList --parsable2 -j ID ...'" >&2
    exit 2
}
jobs=
while [ $# -gt 0 ]; do
    case $1 in
    -o | --format) [ "$2" = JobID,State,NodeList ] || usage; shift ;;
    -P | --parsable2) ;;
    -j | --jobs) [ -n "$2" ] || usage; jobs="$jobs,$2"; shift ;;
    *) usage ;;
    esac
    shift
done
[ -n "$jobs" ] || usage
rows=$(squeue --noheader --all --array --states=all --format='%F|%i|%T|%N') || exit 1
echo 'JobID|State|NodeList'
echo "$rows" | awk -F'|' -v jobs="$jobs" '
    BEGIN {
        count = split(jobs, list, ",")
        for (i = 1; i <= count; i++) asked[list[i]] = 1
        split("CONFIGURING SUSPENDED STOPPED SIGNALING RESIZING", running, " ")
        for (i in running) name[running[i]] = "RUNNING"
        name["STAGE_OUT"] = "COMPLETING"
        name["REQUEUE_HOLD"] = name["REQUEUE_FED"] = "PENDING"
    }
    NF && ($1 in asked || $2 in asked) { print $2 "|" ($3 in name ? name[$3] : $3) "|" $4 }'
