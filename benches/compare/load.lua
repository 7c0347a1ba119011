-- Makes the one request of a workload (arguments: method, size of the body) and prints what was
-- measured in one line that a program can read. wrk builds the request once, after init().

function init(args)
   wrk.method = args[1]
   local size = tonumber(args[2])
   if size > 0 then
      wrk.body = string.rep("x", size)
   end
end

function done(summary, latency)
   local e = summary.errors
   print(string.format("measured requests=%d us=%d p50=%d p99=%d status=%d socket=%d timeout=%d",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      e.status, e.connect + e.read + e.write, e.timeout))
end
