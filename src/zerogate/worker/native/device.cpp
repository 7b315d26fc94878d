// What torch asks of a device: guard, streams and events, generators, hooks. Work is done when a call
// returns, so streams only have names, and events only remember when they were recorded.
#include "device.h"

#include "pools.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <chrono>
#include <cstring>

namespace zerogate {

std::atomic<int64_t> copied_to_device{0}, copied_to_host{0}, waits{0};

namespace {

constexpr auto kDevice = c10::DeviceType::PrivateUse1;
using Clock = std::chrono::steady_clock;

std::atomic<c10::StreamId> streams{0};
thread_local c10::StreamId current_stream = 0;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kDevice; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = current_device();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return current_device(); }
  void setDevice(c10::Device device) const override {
    if (device.index() >= 0) set_current_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0 && device.index() < device_count()) set_current_device(device.index());
  }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  c10::Stream getStream(c10::Device device) const override { return stream(device, current_stream); }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override { return stream(device, ++streams); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return stream(device, ++streams);
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = getStream(next.device());
    current_stream = next.id();
    return before;
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { ++waits; }
  void synchronizeDevice(const c10::DeviceIndex) const override { ++waits; }

  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (*event == nullptr) *event = new Clock::time_point;
    *static_cast<Clock::time_point*>(*event) = Clock::now();
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { ++waits; }
  double elapsedTime(void* start, void* end, const c10::DeviceIndex) const override {
    return std::chrono::duration<double, std::milli>(
               *static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(start))
        .count();
  }

 private:
  static c10::Stream stream(c10::Device device, c10::StreamId id) {
    const auto index = device.index() < 0 ? current_device().index() : device.index();
    return c10::Stream(c10::Stream::UNSAFE, c10::Device(kDevice, index), id);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

// A generator of the device's: a CPU's in a state of its own, which kernels are given.
struct DeviceGenerator final : c10::GeneratorImpl {
  explicit DeviceGenerator(at::Generator on_host)
      : GeneratorImpl(current_device(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host(std::move(on_host)) {}
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(host.clone()); }

  at::Generator host;
};

at::Generator new_generator() {
  return at::make_generator<DeviceGenerator>(at::detail::createCPUGenerator());
}

at::Generator& default_generator() {
  static at::Generator generator = new_generator();
  return generator;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device().index(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { set_current_device(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const auto before = current_device().index();
    set_current_device(index);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current_device().index() : exchangeDevice(index);
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return new_generator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Device getDeviceFromPtr(void*) const override { return current_device(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    at::DataPtr resized = device_allocator()->allocate(size);
    if (const size_t kept = std::min(size, storage.nbytes())) {
      std::memcpy(resized.get(), storage.data(), kept);
    }
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(resized));
    storage.unsafeGetStorageImpl()->set_nbytes(size);
  }
};

}  // namespace

at::Generator on_host(const std::optional<at::Generator>& generator) {
  const at::Generator& used = generator.has_value() && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(
      used.device().type() == kDevice, "Expected a '", kDevice, "' device type for generator but found '",
      used.device().type(), "'");
  return static_cast<DeviceGenerator*>(used.unsafeGetGeneratorImpl())->host;
}

// Python keeps the object, since torch shows none of its own for a device of this kind.
void set_default_generator(const std::optional<at::Generator>& generator) {
  default_generator() = generator.value();
}

TORCH_LIBRARY(zerogate, library) {
  library.def("set_default_generator(Generator? generator) -> ()", &set_default_generator);
}

void register_hooks() {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
}

}  // namespace zerogate

extern "C" {
using zerogate::Pool;

static Pool& pool_of(int which) {
  return which == 0 ? zerogate::device_pool : which == 1 ? zerogate::host_pool : zerogate::pinned_pool;
}
void zerogate_install(int devices) {
  zerogate::set_device_count(static_cast<c10::DeviceIndex>(devices));
  zerogate::install_allocators();
  zerogate::register_hooks();
  zerogate::register_for_all();
}
int64_t zerogate_live_bytes(int pool) { return pool_of(pool).live; }
int64_t zerogate_peak_bytes(int pool) { return pool_of(pool).peak; }
void zerogate_reset_peak(int pool) { pool_of(pool).peak = pool_of(pool).live.load(); }
void zerogate_set_budget(int pool, int64_t bytes) { pool_of(pool).budget = bytes; }
int64_t zerogate_ooms(int pool) { return pool_of(pool).ooms; }
int64_t zerogate_bytes_to_device() { return zerogate::copied_to_device; }
int64_t zerogate_bytes_to_host() { return zerogate::copied_to_host; }
int64_t zerogate_waits() { return zerogate::waits; }
}
