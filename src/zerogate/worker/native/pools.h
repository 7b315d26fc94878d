// Three pools of counted bytes: the device's, the host's and the pinned part of the host's.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/StorageImpl.h>

#include <atomic>
#include <cstdint>

namespace zerogate {

struct Pool {
  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> budget{0};  // 0: none
  std::atomic<int64_t> ooms{0};

  // Counts bytes as held. Raises c10::OutOfMemoryError if there is a budget that they exceed.
  void reserve(int64_t bytes);
};

extern Pool device_pool, host_pool, pinned_pool;

// Host memory that a kernel of a device tensor allocates is the device's: its temporaries and results.
class InKernel {
 public:
  InKernel();
  ~InKernel();
};

c10::Device current_device();
void set_current_device(c10::DeviceIndex index);
c10::DeviceIndex device_count();
void set_device_count(c10::DeviceIndex count);

c10::Allocator* device_allocator();
c10::Allocator* pinned_allocator();
bool is_pinned(const void* data);

// Makes what a kernel allocated as host memory a storage of the device, without moving it.
void adopt(c10::StorageImpl* storage);

// Counts the bytes of all CPU tensors of this process from now on.
void install_allocators();

}  // namespace zerogate
