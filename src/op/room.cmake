# Integers wrap: the bodies of ops say a + b and mean it modulo 2^64.
target_compile_options(${room_target} PRIVATE -fwrapv)
