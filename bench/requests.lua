-- Requests for wrk, and its figures as one line of JSON.
--   wrk … -s bench/requests.lua URL -- get PATH | create | patch FILE_OF_IDS
local kind, path, ids, count, patch = nil, nil, {}, 0, {}
local salt

function init(args)
  kind = args[1]
  math.randomseed(os.time())
  salt = math.random(1, 1000000000)
  if kind == "get" then path = args[2] end
  if kind == "patch" then
    for line in io.lines(args[2]) do ids[#ids + 1] = line end
    for name, value in pairs(wrk.headers) do patch[name] = value end
    patch["Content-Type"] = "application/openstack-images-v2.1-json-patch"
  end
  if kind == "create" then wrk.headers["Content-Type"] = "application/json" end
end

function request()
  count = count + 1
  if kind == "create" then
    return wrk.format("POST", "/v2/images", nil, string.format(
      '{"name":"bench-%d-%d","disk_format":"raw","container_format":"bare","visibility":"private",' ..
      '"os_distro":"debian","os_version":"12","tags":["bench"]}', salt, count))
  end
  if kind == "patch" then
    return wrk.format("PATCH", "/v2/images/" .. ids[count % #ids + 1], patch,
      string.format('[{"op":"add","path":"/bench","value":"%d-%d"}]', salt, count))
  end
  return wrk.format("GET", path)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
