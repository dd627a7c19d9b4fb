# Integers wrap: the bodies of ops say a + b and mean it modulo 2^64.
target_compile_options(${room_target} PRIVATE -fwrapv)
set_target_properties(${room_target} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)
