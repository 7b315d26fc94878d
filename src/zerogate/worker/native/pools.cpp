// The allocators behind the pools. They take memory as torch's CPU allocator does, which would tell the
// profiler of each block as the host's.
#include "pools.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace zerogate {

Pool device_pool, host_pool, pinned_pool;

namespace {

thread_local int kernels = 0;
std::atomic<c10::DeviceIndex> current{0};
std::atomic<c10::DeviceIndex> count{1};

std::mutex pinned_mutex;
std::map<const char*, size_t> pinned_blocks;

// Sits right before the data of every block, so that the data pointer is its own context: torch's
// raw_allocate (oneDNN's scratch memory) demands that.
struct Header {
  int64_t bytes;
  Pool* pool;
};

// What comes before the data, as wide as the alignment of the blocks, which it keeps. Pinned memory
// begins with a page, as a card's driver gives it: direct I/O reads and writes it.
constexpr size_t kPage = 4096;
size_t lead(const Pool& pool) { return &pool == &pinned_pool ? kPage : c10::gAlignment; }
static_assert(c10::gAlignment >= sizeof(Header));

char* allocate_block(size_t size, const Pool& pool) {
  if (&pool != &pinned_pool) return static_cast<char*>(c10::alloc_cpu(size));
  void* block = std::aligned_alloc(kPage, (size + kPage - 1) / kPage * kPage);
  if (block == nullptr) throw std::bad_alloc();
  return static_cast<char*>(block);
}

void free_block(char* block, const Pool& pool) {
  if (&pool == &pinned_pool) {
    std::free(block);
  } else {
    c10::free_cpu(block);
  }
}

// What a kernel sees of the device is the host's.
c10::Device label(const Pool& pool) {
  const bool of_device = &pool == &device_pool && kernels == 0;
  return of_device ? current_device() : c10::Device(c10::DeviceType::CPU);
}

void tell_profiler(void* block, int64_t change, const Pool& pool) {
  if (c10::memoryProfilingEnabled()) {
    const bool of_device = &pool == &device_pool;
    c10::reportMemoryUsageToProfiler(
        block, change, pool.live, pool.live, of_device ? current_device() : c10::Device(c10::DeviceType::CPU));
  }
}

void release(void* data) {
  if (data == nullptr) return;
  const Header header = *(static_cast<Header*>(data) - 1);
  if (header.pool == &pinned_pool) {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks.erase(static_cast<char*>(data));
  }
  header.pool->live -= header.bytes;
  tell_profiler(data, -header.bytes, *header.pool);
  free_block(static_cast<char*>(data) - lead(*header.pool), *header.pool);
}

c10::DataPtr take(size_t size, Pool& pool) {
  const c10::Device device = label(pool);
  if (size == 0) return {nullptr, nullptr, &release, device};
  const auto bytes = static_cast<int64_t>(size);
  pool.reserve(bytes);
  char* block = nullptr;
  try {
    block = allocate_block(size + lead(pool), pool);
  } catch (...) {
    pool.live -= bytes;
    throw;
  }
  char* data = block + lead(pool);
  new (data - sizeof(Header)) Header{bytes, &pool};
  if (&pool == &pinned_pool) {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks[data] = size;
  }
  tell_profiler(data, bytes, pool);
  return {data, data, &release, device};
}

struct Counting : c10::Allocator {
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

struct HostAllocator final : Counting {
  c10::DataPtr allocate(size_t size) override { return take(size, kernels == 0 ? host_pool : device_pool); }
};

struct DeviceAllocator final : Counting {
  c10::DataPtr allocate(size_t size) override { return take(size, device_pool); }
};

struct PinnedAllocator final : Counting {
  c10::DataPtr allocate(size_t size) override { return take(size, pinned_pool); }
};

HostAllocator on_host;
DeviceAllocator on_device;
PinnedAllocator pinned;

}  // namespace

void Pool::reserve(int64_t bytes) {
  const int64_t now = live.fetch_add(bytes) + bytes;
  const int64_t limit = budget;
  if (limit > 0 && now > limit) {
    live -= bytes;
    ++ooms;
    TORCH_CHECK_WITH(
        OutOfMemoryError, false, this == &device_pool ? "emulated device" : "host",
        " out of memory. Tried to allocate ", bytes, " bytes with ", now - bytes, " bytes in use of a budget of ", limit, " bytes.");
  }
  int64_t seen = peak;
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
}

InKernel::InKernel() { ++kernels; }
InKernel::~InKernel() { --kernels; }

c10::Device current_device() { return {c10::DeviceType::PrivateUse1, current.load()}; }
c10::DeviceIndex device_count() { return count; }
void set_device_count(c10::DeviceIndex number) { count = number; }
void set_current_device(c10::DeviceIndex index) {
  TORCH_CHECK(
      index >= 0 && index < count, "invalid device ordinal ", static_cast<int>(index), "; this machine has ",
      static_cast<int>(count.load()), " emulated devices");
  current = index;
}

c10::Allocator* device_allocator() { return &on_device; }
c10::Allocator* pinned_allocator() { return &pinned; }

bool is_pinned(const void* data) {
  const auto* address = static_cast<const char*>(data);
  std::lock_guard<std::mutex> lock(pinned_mutex);
  auto after = pinned_blocks.upper_bound(address);
  return after != pinned_blocks.begin() && address < (--after)->first + after->second;
}

void adopt(c10::StorageImpl* storage) {
  storage->_mutable_data_ptr_no_checks().unsafe_set_device(current_device());
  storage->set_allocator(&on_device);
}

void install_allocators() {
  c10::SetCPUAllocator(&on_host, /*priority=*/255);
}

REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &on_device);

}  // namespace zerogate
