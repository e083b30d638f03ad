// Lanes of floats that differ, for sets without mask registers: as vectors, as comparisons leave them.
#pragma once

typedef NativeFloat NativeLanes;
CROSSENT_INLINE NativeLanes unequal_lanes(NativeFloat a, NativeFloat b) { return (NativeFloat)(a != b); }
CROSSENT_INLINE NativeFloat only_lanes(NativeLanes lanes, NativeFloat value) {
  return (NativeFloat)((NativeBits)lanes & (NativeBits)value);
}
CROSSENT_INLINE int count_lanes(NativeLanes a, NativeLanes b, NativeLanes c, NativeLanes d) {
  constexpr int lanes = kNativeBytes / 4;
  return __builtin_popcount(lane_signs(a) | lane_signs(b) << lanes) +
         __builtin_popcount(lane_signs(c) | lane_signs(d) << lanes);
}
