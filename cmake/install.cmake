# cmake --install: libespalier.so, libespalier_cuda.so, bin/espalier, the headers of public_headers.txt and a package for find_package(espalier).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
if(NOT TARGET espalier OR ESPALIER_SANITIZE OR ESPALIER_FUZZ)
  return()
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/public_headers.txt)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/espalier)

install(TARGETS espalier EXPORT espalierTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/espalier)
install(TARGETS espalier_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET espalier_tool)
  install(TARGETS espalier_tool RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
file(STRINGS ${CMAKE_SOURCE_DIR}/cmake/public_headers.txt headers REGEX "^[^#]")
foreach(header IN LISTS headers)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${CMAKE_SOURCE_DIR}/src/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/espalier/${folder})
endforeach()
install(EXPORT espalierTargets NAMESPACE espalier:: DESTINATION ${package})
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/espalierConfig.cmake.in ${CMAKE_BINARY_DIR}/espalierConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/espalierConfigVersion.cmake COMPATIBILITY ExactVersion)
install(FILES ${CMAKE_BINARY_DIR}/espalierConfig.cmake ${CMAKE_BINARY_DIR}/espalierConfigVersion.cmake
        DESTINATION ${package})
