# The shared library exports what cpp/src/api.hpp says, and calls its own functions directly.
get_target_property(crossent_type crossent TYPE)
if(NOT crossent_type STREQUAL "SHARED_LIBRARY")
  return()
endif()

if(WIN32)
  # Visibility is unknown there: all functions are exported, internal ones too.
  set_target_properties(crossent PROPERTIES WINDOWS_EXPORT_ALL_SYMBOLS ON)
  return()
endif()
target_compile_options(crossent PRIVATE -fno-semantic-interposition)
if(APPLE)
  set(crossent_exports "${CMAKE_CURRENT_LIST_DIR}/exports.macos")
  target_link_options(crossent PRIVATE "LINKER:-exported_symbols_list,${crossent_exports}")
else()
  set(crossent_exports "${CMAKE_CURRENT_LIST_DIR}/exports.ld")
  target_link_options(crossent PRIVATE "LINKER:--version-script=${crossent_exports}" LINKER:-Bsymbolic-functions)
endif()
set_property(TARGET crossent APPEND PROPERTY LINK_DEPENDS "${crossent_exports}")
if(NOT SKBUILD)
  # A wheel carries no symbolic links, so that the library's only name is the one that linkers look for.
  set_target_properties(crossent PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endif()
