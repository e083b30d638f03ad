# What `cmake --install` and the wheel carry for C++ users: headers, the archive, and a relocatable package description.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(SKBUILD)
  # Below the Python package, where crossent.get_include() and crossent.get_cmake_dir() look.
  set(crossent_prefix crossent/)
  set(CMAKE_INSTALL_LIBDIR lib)
  set(CMAKE_INSTALL_INCLUDEDIR include)
else()
  set(crossent_prefix "")
endif()
set(crossent_lib_dir "${crossent_prefix}${CMAKE_INSTALL_LIBDIR}")
set(crossent_cmake_dir "${crossent_lib_dir}/cmake/crossent")

install(TARGETS crossent EXPORT crossentTargets ARCHIVE DESTINATION "${crossent_lib_dir}")
install(DIRECTORY cpp/include/crossent DESTINATION "${crossent_prefix}${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT crossentTargets NAMESPACE crossent:: DESTINATION "${crossent_cmake_dir}")
configure_package_config_file(
  cmake/crossentConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/crossentConfig.cmake" INSTALL_DESTINATION "${crossent_cmake_dir}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/crossentConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/crossentConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/crossentConfigVersion.cmake"
  DESTINATION "${crossent_cmake_dir}")
