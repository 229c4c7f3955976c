# N starts, four at a time, as fast as the guest can: what the process sensor tells of them.
N=$(cat /vm/env/N)
mkdir -p /etc/sekisho && cp /root/agent.yaml /etc/sekisho/agent.yaml
sekisho-agent run --config /etc/sekisho/agent.yaml --tee /root/told.jsonl 2>/root/agent.err &
agent=$!
n=0
until sekisho-agent status 2>/dev/null | grep -q ebpf; do
	n=$((n + 1))
	[ $n -lt 120 ] || { cat /root/agent.err; sekisho-agent status; exit 1; }
	sleep 0.5
done
uname -r
used() { awk '{print ($14 + $15) * 10}' /proc/$agent/stat; } # ms of CPU
before=$(used) began=$(vm ms)
seq "$N" | xargs -P 4 -n 1 /usr/bin/flood
echo "flood took $(($(vm ms) - began)) ms"
told() { grep -c '"/usr/bin/flood"' /root/told.jsonl; } # not of the commands here: their quotes are escaped
was=-1 # until nothing more has been told of them for ten seconds
until [ "$(told)" = "$was" ]; do
	was=$(told)
	sleep 10
done
echo "agent used $(($(used) - before)) ms"
sekisho-agent status --json | tr -d ' \n' | sed 's/.*"name":"process"/"name":"process"/; s/}.*//'
echo
kill $agent
wait $agent
grep '"/usr/bin/flood"' /root/told.jsonl | grep '"action":"process-started"' | grep -o '"args":\["/usr/bin/flood","[0-9]*"' | sort -u | wc -l | sed "s/^ */== started of $N: /"
grep '"/usr/bin/flood"' /root/told.jsonl | grep '"action":"process-ended"' | grep -c '"exit_code":0' | sed "s/^ */== ended of $N: /"
grep -o '"action":"events-lost".*' /root/told.jsonl | head
