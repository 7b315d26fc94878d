// A counting CPU allocator for torch: live bytes, peak bytes and a budget, as a CUDA device has them.
//
// Wraps whatever allocator is installed. Crossing the budget raises c10::OutOfMemoryError, which
// Python sees as torch.OutOfMemoryError, the class that CUDA raises. Only c10 headers are needed,
// so this builds in seconds; the functions are plain C for ctypes.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

std::atomic<int64_t> live{0};
std::atomic<int64_t> peak{0};
std::atomic<int64_t> budget{0};  // 0: none
std::atomic<int64_t> ooms{0};
c10::Allocator* wrapped = nullptr;

// Sits in front of every block, so that the data pointer is its own context: torch's raw_allocate
// (oneDNN's scratch memory) demands that. As wide as the alignment of the blocks, which it keeps.
constexpr size_t kHeader = 64;
static_assert(kHeader >= c10::gAlignment && kHeader >= sizeof(int64_t));

void release(void* data) {
  if (data == nullptr) return;
  char* block = static_cast<char*>(data) - kHeader;
  live.fetch_sub(*reinterpret_cast<int64_t*>(block));
  wrapped->raw_deallocate(block);
}

void reserve(int64_t bytes) {
  const int64_t now = live.fetch_add(bytes) + bytes;
  const int64_t limit = budget.load();
  if (limit > 0 && now > limit) {
    live.fetch_sub(bytes);
    ooms.fetch_add(1);
    TORCH_CHECK_WITH(
        OutOfMemoryError, false, "CPU out of memory. Tried to allocate ", bytes, " bytes with ",
        now - bytes, " bytes in use of a budget of ", limit, " bytes.");
  }
  int64_t seen = peak.load();
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
}

struct CountingAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (size == 0) return {nullptr, nullptr, &release, cpu};
    const auto bytes = static_cast<int64_t>(size);
    reserve(bytes);
    char* block = nullptr;
    try {
      block = static_cast<char*>(wrapped->raw_allocate(size + kHeader));
    } catch (...) {
      live.fetch_sub(bytes);
      throw;
    }
    *reinterpret_cast<int64_t*>(block) = bytes;
    return {block + kHeader, block + kHeader, &release, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

CountingAllocator counting;

}  // namespace

extern "C" {
void zerogate_install() {
  if (wrapped == nullptr) {
    wrapped = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&counting, /*priority=*/255);
  }
}
int64_t zerogate_live_bytes() { return live.load(); }
int64_t zerogate_peak_bytes() { return peak.load(); }
int64_t zerogate_ooms() { return ooms.load(); }
void zerogate_reset_peak() { peak.store(live.load()); }
void zerogate_set_budget(int64_t bytes) { budget.store(bytes); }
}
