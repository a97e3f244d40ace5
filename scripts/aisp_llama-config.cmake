# CMake package of the sampler plugin:
#
#   find_package(aisp_llama REQUIRED)
#   target_link_libraries(program PRIVATE aisp_llama::aisp_llama llama)
#
# aisp_llama::static is the same as a static library. Link the program's own llama.cpp as well:
# the headers use it, the library does not.
get_filename_component(_aisp_llama_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_package(Threads REQUIRED)

if(NOT TARGET aisp_llama::aisp_llama)
    add_library(aisp_llama::aisp_llama SHARED IMPORTED)
    set_target_properties(aisp_llama::aisp_llama PROPERTIES
        IMPORTED_LOCATION "${_aisp_llama_prefix}/lib/libaisp_llama${CMAKE_SHARED_LIBRARY_SUFFIX}"
        IMPORTED_NO_SONAME TRUE
        INTERFACE_INCLUDE_DIRECTORIES "${_aisp_llama_prefix}/include")
    add_library(aisp_llama::static STATIC IMPORTED)
    set_target_properties(aisp_llama::static PROPERTIES
        IMPORTED_LOCATION "${_aisp_llama_prefix}/lib/libaisp_llama.a"
        INTERFACE_INCLUDE_DIRECTORIES "${_aisp_llama_prefix}/include"
        INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()
