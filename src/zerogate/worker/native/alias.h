// A device tensor as a CPU tensor over the same storage, and a CPU tensor as a device tensor.
#pragma once

#include "pools.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/SmallVector.h>

namespace zerogate {

using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;

constexpr auto kDevice = c10::DeviceType::PrivateUse1;
constexpr auto kHost = c10::DeviceType::CPU;

inline bool on_device(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == kDevice; }

// A tensor of one device over a storage of the other: torch's own constructors take the storage's device.
struct Alias final : c10::TensorImpl {
  Alias(const Tensor& of, c10::Device device, DispatchKey key)
      : TensorImpl(DispatchKeySet(key), of.dtype(), device) {
    storage_ = of.storage();
    set_sizes_and_strides(of.sizes(), of.strides(), of.storage_offset());
  }
};

inline Tensor alias(const Tensor& of, c10::Device device, DispatchKey key) {
  Tensor made(c10::make_intrusive<Alias>(of, device, key));
  if (of.is_conj()) made._set_conj(true);
  if (of.is_neg()) made._set_neg(true);
  return made;
}

// While this lives, storages of the device are the host's: views that a CPU kernel makes take the device
// from there.
class AsHost {
 public:
  AsHost() = default;
  AsHost(const AsHost&) = delete;
  AsHost& operator=(const AsHost&) = delete;
  ~AsHost() {
    for (const c10::Storage& storage : storages_) storage.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks().unsafe_set_device(device_);
  }

  Tensor of(const Tensor& tensor) {
    if (!on_device(tensor)) return tensor;
    Tensor made = alias(tensor, c10::Device(kHost), DispatchKey::CPU);
    auto* storage = tensor.storage().unsafeGetStorageImpl();
    if (storage->device_type() == kDevice) {
      storages_.push_back(tensor.storage());
      storage->_mutable_data_ptr_no_checks().unsafe_set_device(c10::Device(kHost));
    }
    return made;
  }

 private:
  const c10::Device device_ = current_device();
  c10::SmallVector<c10::Storage, 4> storages_;
};

// Makes a tensor that a CPU kernel returned one of the device's.
inline Tensor as_device(const Tensor& tensor) {
  if (!tensor.defined() || on_device(tensor)) return tensor;
  if (tensor._is_zerotensor()) {  // Zeros without memory, which kernels know by a key of their own.
    return at::zeros(tensor.sizes(), tensor.options().device(current_device()));
  }
  adopt(tensor.storage().unsafeGetStorageImpl());
  return alias(tensor, current_device(), DispatchKey::PrivateUse1);
}

}  // namespace zerogate
