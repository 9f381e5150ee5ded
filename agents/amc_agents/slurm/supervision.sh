# Start the agent, tell it the end of the job, and end what it leaves.

# Slurm warns this shell alone, before the time limit. scancel, a preemption and the time limit itself send SIGTERM to
# every process of the job. So the first SIGTERM is not passed on: a second signal makes the agent kill its trials.
agent_pid=
ended_by_slurm=
trap '[ -z "$agent_pid" ] || kill -USR1 "$agent_pid"' USR1
trap 'ended_by_slurm=yes; [ -z "$agent_pid" ] || { sleep "$term_grace_s"; kill -TERM "$agent_pid"; } & disown' TERM

end_the_rest() {  # what left its session or lost its parent still has the job's id in its environment
    for _ in {1..50}; do  # again, because a dying process may have started another
        others=()
        for file in $(exec env -i grep -slzx "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ); do
            pid=${file//[!0-9]/}
            [ "$pid" = $$ ] || [ "$pid" = "$PPID" ] || others+=("$pid")
        done
        [ ${#others[@]} -gt 0 ] || return
        kill -KILL "${others[@]}" 2> /dev/null
        sleep 0.1
    done
}
trap end_the_rest EXIT

sleep "$((SLURM_ARRAY_TASK_ID * stagger_ms))e-3"  # many agents that ask at once would wait for each other
left_s=$((time_s > SECONDS ? time_s - SECONDS : 1))
"${agent[@]}" --time-limit "${left_s}s" &
agent_pid=$!
while kill -0 "$agent_pid" 2> /dev/null; do
    wait "$agent_pid"  # a signal to this shell ends it before the agent has ended
done
wait "$agent_pid"
code=$?
if [ "$code" = 75 ] && [ -n "$requeue" ] && [ -z "$ended_by_slurm" ]; then  # the time was too short for its work
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
