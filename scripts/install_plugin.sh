#!/usr/bin/env bash
# Installs the sampler plugin: libraries, headers, a pkg-config file and a CMake package.
#
#   scripts/install_plugin.sh LIBRARIES PREFIX VERSION
#
# $DESTDIR goes in front of PREFIX where files are written, for packages.
set -euo pipefail

libraries=$1 prefix=$2 version=$3
repository=$(dirname "${BASH_SOURCE[0]}")/..
root=${DESTDIR:-}$prefix

install -d "$root/include" "$root/lib/pkgconfig" "$root/lib/cmake/aisp_llama"
install -m 644 "$repository"/include/aisp_llama.h "$repository"/include/aisp_llama_glue.h \
    "$root/include/"
install -m 644 "$libraries/libaisp_llama.a" "$root/lib/"
for library in libaisp_llama.so libaisp_llama.dylib; do
    if [[ -e $libraries/$library ]]; then
        install -m 755 "$libraries/$library" "$root/lib/"
    fi
done
if [[ -e $libraries/libaisp_llama.dylib ]]; then
    install_name_tool -id @rpath/libaisp_llama.dylib "$root/lib/libaisp_llama.dylib"
fi
# Both find the rest from where they are: the installation can be moved.
sed "s/@VERSION@/$version/" "$repository/scripts/aisp_llama.pc.in" \
    >"$root/lib/pkgconfig/aisp_llama.pc"
install -m 644 "$repository/scripts/aisp_llama-config.cmake" "$root/lib/cmake/aisp_llama/"
sed "s/@VERSION@/$version/" "$repository/scripts/aisp_llama-config-version.cmake.in" \
    >"$root/lib/cmake/aisp_llama/aisp_llama-config-version.cmake"
