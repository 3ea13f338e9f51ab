-- For wrk: posts the lines of a file in turn; prints when each right answer came and how many
-- calls failed. One thread: `wrk -t1 ... -s wrk.lua URL -- FILE MARK`, a right answer has MARK.
local ffi = require("ffi")
ffi.cdef("struct moment { long s; long ns; }; int clock_gettime(int, struct moment *);")

local clock = ffi.new("struct moment")
local thread

local function now()
  ffi.C.clock_gettime(0, clock)
  return tonumber(clock.s) + tonumber(clock.ns) * 1e-9
end

function setup(it)
  thread = it
end

function init(args)
  requests, turn, ended, failed, began, mark = {}, 0, {}, 0, nil, args[2]
  local headers = { ["Content-Type"] = "application/json" }
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  began = began or now()
  turn = turn % #requests + 1
  return requests[turn]
end

function response(status, headers, body)
  if status == 200 and body:find(mark, 1, true) then
    ended[#ended + 1] = now() - began
  else
    failed = failed + 1
  end
end

function done(summary)
  for _, moment in ipairs(thread:get("ended")) do
    print(string.format("answered %.6f", moment))
  end
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  print(string.format("failed %d", thread:get("failed") + broken))
end
