// The kernels that the device needs of its own: memory, views, copies, and those that torch asks for.
#include "alias.h"
#include "device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <ATen/native/Resize.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_local_scalar_dense_cpu_dispatch.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/library.h>

#include <array>
#include <tuple>
#include <vector>

namespace zerogate {
namespace {

Tensor empty(
    at::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), device_allocator(), DispatchKeySet(DispatchKey::PrivateUse1),
      c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    at::SymIntArrayRef size, at::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), device_allocator(),
      DispatchKeySet(DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

// Views are the commonest operators by far: without the boxed detour.
Tensor view_of(const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride, int64_t offset) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(), self.dtype());
  at::native::setStrided(made, size, stride, offset);
  return made;
}

Tensor as_strided(
    const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride, std::optional<int64_t> offset) {
  return view_of(self, size, stride, offset.value_or(self.storage_offset()));
}

Tensor view(const Tensor& self, at::IntArrayRef size) {
  const auto inferred = at::infer_size_dv(size, self.numel());
  const auto stride = at::detail::computeStride(self.sizes(), self.strides(), inferred);
  TORCH_CHECK(
      stride.has_value(), "view size is not compatible with input tensor's size and stride (at least one "
      "dimension spans across two contiguous subspaces). Use .reshape(...) instead.");
  return view_of(self, inferred, *stride, self.storage_offset());
}

Tensor reshape_alias(const Tensor& self, at::IntArrayRef size, at::IntArrayRef stride) {
  return view_of(self, size, stride, self.storage_offset());
}

// A card copies contiguous bytes of the target's type, and its host waits for them unless they are pinned.
Tensor copy_from(const Tensor& self, const Tensor& target, bool non_blocking) {
  if (on_device(self) != on_device(target) && target.numel() > 0) {
    const Tensor& host = on_device(self) ? target : self;
    (on_device(self) ? copied_to_host : copied_to_device) += static_cast<int64_t>(target.nbytes());
    if (!non_blocking || !is_pinned(host.storage().data())) ++waits;
  }
  AsHost host;
  InKernel kernel;
  host.of(target).copy_(host.of(self));
  return target;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& target) {
  target.resize_(self.sizes());
  return copy_from(self, target, false);
}

at::Scalar local_scalar(const Tensor& self) {
  ++waits;
  AsHost host;
  return at::cpu::_local_scalar_dense(host.of(self));
}

Tensor& set_storage(
    Tensor& self, c10::Storage storage, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  at::native::checkSetStorage(self, std::move(storage), offset, size, stride, false);
  self.unsafeGetTensorImpl()->set_storage_offset(offset);
  at::native::resize_impl_cpu_(
      self.unsafeGetTensorImpl(), size, stride.data() ? at::OptionalIntArrayRef(stride) : std::nullopt);
  return self;
}

Tensor& set_whole_storage(Tensor& self, c10::Storage storage) {
  const auto elements = static_cast<int64_t>(storage.nbytes() / self.element_size());
  return set_storage(self, std::move(storage), 0, {elements}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& other) {
  return set_storage(self, other.storage(), other.storage_offset(), other.sizes(), other.strides());
}

Tensor& set_empty(Tensor& self) {
  return set_whole_storage(self, c10::Storage(c10::Storage::use_byte_size_t(), 0, device_allocator(), true));
}

void record_stream(Tensor&, c10::Stream) {}  // Work on a stream is done when its call returns.

Tensor convolution(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
    int64_t groups) {
  AsHost host;
  InKernel kernel;
  const auto host_bias = bias ? std::optional<Tensor>(host.of(*bias)) : std::nullopt;
  return as_device(at::convolution(
      host.of(input), host.of(weight), host_bias, stride, padding, dilation, transposed, output_padding,
      groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> mask) {
  AsHost host;
  InKernel kernel;
  const std::vector<int64_t> bias{transposed ? weight.size(1) * groups : weight.size(0)};
  auto [a, b, c] = at::convolution_backward(
      host.of(gradient), host.of(input), host.of(weight), at::OptionalIntArrayRef(bias), stride, padding,
      dilation, transposed, output_padding, groups, mask);
  return {as_device(a), as_device(b), as_device(c)};
}

// Attention takes the kernel that it takes on a CPU; torch asks nobody else about a device of this kind.
int64_t attention_kernel(
    const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>& mask,
    double dropout, bool is_causal, std::optional<double> scale, bool enable_gqa) {
  AsHost host;
  const auto host_mask = mask ? std::optional<Tensor>(host.of(*mask)) : std::nullopt;
  return at::_fused_sdp_choice(
      host.of(query), host.of(key), host.of(value), host_mask, dropout, is_causal, scale, enable_gqa);
}

// torch keeps a parameter's identity through .to(device) if the new tensor may take the place of the old
// one. It asks by lists of backends, which leave out PrivateUse1; tied weights would come apart.
bool may_replace(const Tensor& self, const Tensor& other) {
  const auto plain = [](const Tensor& tensor) {
    return tensor.layout() == at::kStrided && (tensor.device().type() == kHost || on_device(tensor));
  };
  return self.key_set() == other.key_set() || (plain(self) && plain(other));
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("as_strided", as_strided);
  library.impl("view", view);
  library.impl("_reshape_alias", reshape_alias);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar);
  library.impl("set_", set_empty);
  library.impl("set_.source_Tensor", set_tensor);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("record_stream", record_stream);
  library.impl("convolution_overrideable", convolution);
  library.impl("convolution_backward_overrideable", convolution_backward);
  library.impl("_has_compatible_shallow_copy_type", may_replace);
}

TORCH_LIBRARY_IMPL(aten, CPU, library) { library.impl("_has_compatible_shallow_copy_type", may_replace); }

}  // namespace zerogate

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &zerogate::attention_kernel)
}  // namespace at::native
