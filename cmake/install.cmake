# What `cmake --install` and the wheel carry for C++ users: headers, the library, and a relocatable package description.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(SKBUILD)
  # Below the Python package, where crossent.get_include() and crossent.get_cmake_dir() look.
  set(crossent_prefix crossent/)
  set(CMAKE_INSTALL_LIBDIR lib)
  set(CMAKE_INSTALL_INCLUDEDIR include)
  set(CMAKE_INSTALL_BINDIR .) # DLLs: beside the Python module, since Windows looks for them there
else()
  set(crossent_prefix "")
endif()
set(crossent_lib_dir "${crossent_prefix}${CMAKE_INSTALL_LIBDIR}")
set(crossent_include_dir "${crossent_prefix}${CMAKE_INSTALL_INCLUDEDIR}")
set(crossent_cmake_dir "${crossent_lib_dir}/cmake/crossent")
target_include_directories(crossent INTERFACE $<INSTALL_INTERFACE:${crossent_include_dir}>)

install(TARGETS crossent EXPORT crossentTargets ARCHIVE DESTINATION "${crossent_lib_dir}"
  LIBRARY DESTINATION "${crossent_lib_dir}" RUNTIME DESTINATION "${crossent_prefix}${CMAKE_INSTALL_BINDIR}")
install(DIRECTORY cpp/include/crossent DESTINATION "${crossent_include_dir}")
install(EXPORT crossentTargets NAMESPACE crossent:: DESTINATION "${crossent_cmake_dir}")
configure_package_config_file(
  cmake/crossentConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/crossentConfig.cmake" INSTALL_DESTINATION "${crossent_cmake_dir}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/crossentConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/crossentConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/crossentConfigVersion.cmake"
  DESTINATION "${crossent_cmake_dir}")

# A program needs what a static library needs, too. A shared one in a wheel lies where no loader looks of itself.
set(crossent_pc_libs "")
if(crossent_type STREQUAL "STATIC_LIBRARY")
  list(APPEND crossent_pc_libs ${CMAKE_THREAD_LIBS_INIT})
  if(OpenMP_CXX_FOUND)
    list(APPEND crossent_pc_libs ${OpenMP_CXX_FLAGS})
  endif()
elseif(SKBUILD AND NOT WIN32)
  list(APPEND crossent_pc_libs "-Wl,-rpath,\${libdir}")
endif()
list(JOIN crossent_pc_libs " " crossent_pc_libs)
set(crossent_pc_dir "${crossent_lib_dir}/pkgconfig")
file(RELATIVE_PATH crossent_pc_prefix "/prefix/${crossent_pc_dir}" /prefix)
configure_file(cmake/crossent.pc.in "${CMAKE_CURRENT_BINARY_DIR}/crossent.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/crossent.pc" DESTINATION "${crossent_pc_dir}")
