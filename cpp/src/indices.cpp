// Reading and checking class indices.
#include "indices.hpp"

#include <algorithm>

#include "elements.hpp"

namespace crossent {
namespace {

template <class Index>
bool read_run(const char* p, std::ptrdiff_t stride, std::ptrdiff_t count, const IndexRange& range, std::int64_t* index) {
  bool bad = false;
  const auto read = [&](std::ptrdiff_t i, std::ptrdiff_t step) {
    const Index raw = read_element<Index>(p + i * step);
    const std::int64_t value = static_cast<std::int64_t>(raw);
    const bool representable = sizeof(Index) < 8 || Index(-1) < Index(0) || value >= 0;
    const bool ignore = range.has_ignored & representable & (value == range.ignored);
    const bool inside = representable & (static_cast<std::uint64_t>(value) < static_cast<std::uint64_t>(range.classes));
    bad |= !(inside | ignore);
    index[i] = ignore ? -1 : value;
  };
  // A stride that is known: a third of the time.
  if (stride == sizeof(Index)) {
    for (std::ptrdiff_t i = 0; i < count; ++i) read(i, sizeof(Index));
  } else {
    for (std::ptrdiff_t i = 0; i < count; ++i) read(i, stride);
  }
  return !bad;
}

}  // namespace

bool read_indices(DType dtype, const char* p, std::ptrdiff_t stride, std::ptrdiff_t count, const IndexRange& range,
                  std::int64_t* index) {
  switch (dtype) {
    case DType::int8:
      return read_run<std::int8_t>(p, stride, count, range, index);
    case DType::int16:
      return read_run<std::int16_t>(p, stride, count, range, index);
    case DType::int32:
      return read_run<std::int32_t>(p, stride, count, range, index);
    case DType::int64:
      return read_run<std::int64_t>(p, stride, count, range, index);
    case DType::uint16:
      return read_run<std::uint16_t>(p, stride, count, range, index);
    case DType::uint32:
      return read_run<std::uint32_t>(p, stride, count, range, index);
    case DType::uint64:
      return read_run<std::uint64_t>(p, stride, count, range, index);
    default:
      return read_run<std::uint8_t>(p, stride, count, range, index);
  }
}

void reread_indices(DType dtype, const char* p, std::ptrdiff_t stride, std::ptrdiff_t count, const IndexRange& range,
                    std::int64_t* index) {
  if (read_indices(dtype, p, stride, count, range, index)) return;
  const std::int64_t least = range.has_ignored ? -1 : 0;
  for (std::ptrdiff_t i = 0; i < count; ++i) index[i] = std::clamp(index[i], least, range.classes - 1);
}

Status bad_index(const char* name, const ConstArray& indices, const IndexRange& range) {
  const std::ptrdiff_t size = indices.size();
  for (std::ptrdiff_t i = 0; i < size; ++i) {
    std::ptrdiff_t left = i, position[kMaxDims];
    const char* p = static_cast<const char*>(indices.data);
    for (int d = indices.ndim - 1; d >= 0; --d) {
      position[d] = left % indices.shape[d];
      p += position[d] * indices.strides[d];
      left /= indices.shape[d];
    }
    std::int64_t value;
    if (read_indices(indices.dtype, p, 0, 1, range, &value)) continue;
    std::string text = std::string(name) + " ";
    text += indices.dtype == DType::uint64 ? std::to_string(read_element<std::uint64_t>(p)) : std::to_string(value);
    if (indices.ndim > 0) text += " at position " + shape_text(indices.ndim, position);
    text += " is outside [0, " + std::to_string(range.classes) + "), the C = " + std::to_string(range.classes) + " classes";
    if (range.has_ignored) text += ", and is not ignore_index (" + std::to_string(range.ignored) + ")";
    return {Code::bad_index, text};
  }
  return {};
}

}  // namespace crossent
