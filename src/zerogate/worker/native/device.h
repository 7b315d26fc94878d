// What the device's kernels need of the device.
#pragma once

#include <ATen/core/Generator.h>

#include <atomic>
#include <cstdint>
#include <optional>

namespace zerogate {

// Bytes that copies moved between host and device, and how often the host waited for the device.
extern std::atomic<int64_t> copied_to_device, copied_to_host, waits;

// The CPU generator behind the device's; behind its default one if none is given.
at::Generator on_host(const std::optional<at::Generator>& generator);

void register_hooks();

// Gives a kernel to the operators that the fallback does not reach: torch has derived kernels for some,
// and its collectives look for a backend of the device, while gloo runs them over the same bytes.
void register_for_all();

}  // namespace zerogate
