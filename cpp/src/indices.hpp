// Class indices of any integer dtype: read as 64-bit numbers, checked, and reported where they are out of range.
#pragma once

#include "api.hpp"

namespace crossent {

// Which indices are allowed.
struct IndexRange {
  std::int64_t classes = 0;
  bool has_ignored = false;
  std::int64_t ignored = 0;
};

// Reads `count` indices at a stride in bytes; -1 stands for ignored. Returns whether all are in range.
bool read_indices(DType dtype, const char* p, std::ptrdiff_t stride, std::ptrdiff_t count, const IndexRange& range,
                  std::int64_t* index);

// The same of indices that were checked before. Another thread may have changed them since: what is out of range now becomes
// another class or ignored, so that nothing beyond the arrays is touched.
void reread_indices(DType dtype, const char* p, std::ptrdiff_t stride, std::ptrdiff_t count, const IndexRange& range,
                    std::int64_t* index);

// The error of the first index out of range, in the order of the array's own indices; only once one is known to exist.
Status bad_index(const char* name, const ConstArray& indices, const IndexRange& range);

}  // namespace crossent
