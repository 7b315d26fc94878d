// The kernels of nearly all operators: the CPU's, on CPU tensors over the same storages.
#include "alias.h"
#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <torch/library.h>

#include <unordered_set>
#include <vector>

namespace zerogate {
namespace {

using c10::IValue;

// Operators whose indices may lie on the host, for a card too.
bool indexes(const std::string& name) {
  return name == "aten::index" || name == "aten::index_put" || name == "aten::index_put_" ||
      name == "aten::_index_put_impl_" || name == "aten::_unsafe_index" || name == "aten::_unsafe_index_put";
}

// One call of an operator: its device tensors and the CPU tensors that take their places.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op), indexes_(indexes(op.schema().name())) {}

  IValue to_host(const IValue& value) {
    if (value.isTensor()) return swap(value.toTensor());
    if (value.isDevice() && value.toDevice().type() == kDevice) return c10::Device(kHost);
    if (value.isGenerator()) return on_host(value.toGenerator());
    return within(value, [this](const IValue& one) { return to_host(one); });
  }

  IValue to_device(const IValue& value) {
    if (value.isTensor()) return swap_back(value.toTensor());
    return within(value, [this](const IValue& one) { return to_device(one); });
  }

  // Gives device tensors what the kernel made of theirs: sizes of an out= argument, a storage.
  void keep_changes() {
    for (const auto& [device, host] : pairs_) {
      auto* impl = device.unsafeGetTensorImpl();
      if (!host.storage().is_alias_of(device.storage())) impl->set_storage_keep_dtype(as_device(host).storage());
      if (host.sizes() != device.sizes() || host.strides() != device.strides() ||
          host.storage_offset() != device.storage_offset()) {
        impl->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
      }
    }
  }

  // Raises if the call mixes host and device, as a card does; a host's scalar goes with anything.
  void check_devices() const {
    TORCH_CHECK(
        stranger_ == nullptr,
        "Expected all tensors to be on the same device, but found at least two devices, ", current_device(),
        " and cpu! (when checking argument ", *stranger_, " of ", op_.schema().name(), ")");
  }

  void of_argument(const std::string& name) { argument_ = &name; }

 private:
  template <class Change>
  IValue within(const IValue& value, const Change& change) {
    if (!value.isList()) return value;
    const auto list = value.toListRef();
    bool holds_tensors = false;
    for (const IValue& one : list) holds_tensors |= one.isTensor() || one.isList();
    if (!holds_tensors) return value;
    c10::impl::GenericList changed(value.toList().elementType());
    for (const IValue& one : list) changed.push_back(change(one));
    return changed;
  }

  Tensor swap(const Tensor& tensor) {
    if (on_device(tensor)) return pairs_.emplace_back(tensor, as_host_.of(tensor)).second;
    if (tensor.defined() && tensor.device().type() == kHost) {
      hosts_.insert(tensor.storage().unsafeGetStorageImpl());
      if (tensor.dim() > 0 && !(indexes_ && *argument_ == "indices")) stranger_ = argument_;
    }
    return tensor;
  }

  Tensor swap_back(const Tensor& tensor) {
    if (!tensor.defined() || tensor.device().type() != kHost) return tensor;
    for (const auto& [device, host] : pairs_) {
      if (host.is_same(tensor)) return device;
    }
    if (hosts_.count(tensor.storage().unsafeGetStorageImpl())) return tensor;
    return as_device(tensor);
  }

  const c10::OperatorHandle& op_;
  bool indexes_;
  AsHost as_host_;
  std::vector<std::pair<Tensor, Tensor>> pairs_;
  std::unordered_set<c10::StorageImpl*> hosts_;
  const std::string* argument_ = nullptr;
  const std::string* stranger_ = nullptr;
};

// Kernels that take random numbers without a generator argument (dropout) use the CPU's default one:
// during the call it has the state of the device's.
class DefaultGenerator {
 public:
  explicit DefaultGenerator(bool used) : used_(used) {
    if (used_) exchange();
  }
  ~DefaultGenerator() {
    if (used_) exchange();
  }

 private:
  static void exchange() {
    auto* ours = at::check_generator<at::CPUGeneratorImpl>(on_host(std::nullopt));
    auto* hosts = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
    const auto engine = ours->engine();
    ours->set_engine(hosts->engine());
    hosts->set_engine(engine);
    const auto floats = ours->next_float_normal_sample();
    ours->set_next_float_normal_sample(hosts->next_float_normal_sample());
    hosts->set_next_float_normal_sample(floats);
    const auto doubles = ours->next_double_normal_sample();
    ours->set_next_double_normal_sample(hosts->next_double_normal_sample());
    hosts->set_next_double_normal_sample(doubles);
  }
  bool used_;
};

// A card's host waits for these: what or how much they return depends on values. Indexing is one of them
// only if an index is a mask.
bool waits_for_values(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  if (!indexes(op.schema().name())) {
    return op.hasTag(at::Tag::data_dependent_output) || op.hasTag(at::Tag::dynamic_output_shape);
  }
  const auto arguments = op.schema().arguments().size();
  for (const auto& index : stack[stack.size() - arguments + 1].toOptionalTensorVector()) {
    if (index && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte)) return true;
  }
  return false;
}

void run(const c10::OperatorHandle& op, torch::jit::Stack* stack, bool is_kernel) {
  const auto& schema = op.schema();
  const auto& arguments = schema.arguments();
  const size_t begin = stack->size() - arguments.size();
  Call call(op);
  bool takes_generator = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    IValue& value = (*stack)[begin + i];
    call.of_argument(arguments[i].name());
    if (arguments[i].name() == "generator") {
      takes_generator = true;
      value = on_host(value.toOptional<at::Generator>());
    } else {
      value = call.to_host(value);
    }
  }
  call.check_devices();
  if (waits_for_values(op, *stack)) ++waits;
  {
    DefaultGenerator random(!takes_generator && op.hasTag(at::Tag::nondeterministic_seeded));
    std::optional<InKernel> kernel;
    if (is_kernel) kernel.emplace();
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  }
  call.keep_changes();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    (*stack)[i] = call.to_device((*stack)[i]);
  }
}

void on_cpu_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack) { run(op, stack, true); }

// What the transport needs beside the tensors is the host's.
void on_cpu_backend(const c10::OperatorHandle& op, torch::jit::Stack* stack) { run(op, stack, false); }

}  // namespace

void register_for_all() {
  static torch::Library collectives(torch::Library::IMPL, "c10d", DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static torch::Library kernels(torch::Library::IMPL, "aten", DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static bool registered = false;
  if (registered) return;
  registered = true;
  struct Silent final : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  } silent;
  c10::WarningUtils::WarningHandlerGuard guard(&silent);  // torch warns that a kernel is replaced.
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(name);
    if (!op) continue;
    const auto full = toString(name);
    const bool known = op->hasKernelForDispatchKey(DispatchKey::PrivateUse1);
    if (full.rfind("c10d::", 0) == 0 && known) {
      collectives.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&on_cpu_backend>());
    }
    // For these torch would take a kernel of its own that combines others: another algorithm than a
    // CPU's and a card's (layer norm), or the out= variant, which counts as an operator too.
    if (full.rfind("aten::", 0) == 0 && !known && op->hasKernelForDispatchKey(DispatchKey::CPU)) {
      kernels.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&on_cpu_kernel>());
    }
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu_kernel>());
}

}  // namespace zerogate
