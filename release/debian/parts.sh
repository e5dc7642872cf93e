# shellcheck shell=bash
# What both packages are made with. $here is this folder, $top the root of the tree.

fail() {
    echo "${0##*/debian/}: $*" >&2
    exit 1
}

# Version, maintainer and date are those of the first entry of the changelog.
read_changelog() {
    export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH
    umask 022
    local trailer
    version=$(sed -n '1s/^ovmf-xen (\(.*\)) .*/\1/p' "$here/changelog")
    trailer=$(sed -n 's/^ -- //p' "$here/changelog" | head -n 1)
    maintainer=${trailer%%  *}
    SOURCE_DATE_EPOCH=$(date -d "${trailer#*  }" +%s) || fail "the first entry of $here/changelog has no date"
}

# Text of a licence as a field of the copyright file: behind its title, indented, a dot for an empty line.
licence() { sed "0,/^Copyright/d; /^All rights reserved/d" "$top/$1" | sed -n '/./,$p' | sed 's/^$/./; s/^/ /'; }

# copyright TEMPLATE: the template with the texts of licences in the place of their names.
copyright() {
    local line
    while IFS= read -r line; do
        case $line in
            @*@) line=${line//@/}; licence "$line" ;;
            *) echo "$line" ;;
        esac
    done <"$1"
}

# manual PAGE TREE: a manual page of section 8.
manual() {
    install -d "$2/usr/share/man/man8"
    gzip -9n <"$1" >"$2/usr/share/man/man8/${1##*/}.gz"
}

# pack TREE CONTROL OUT [EXPRESSION]: the package of a directory, whose control file is made of CONTROL, by sed.
pack() {
    local tree=$1 control=$2 out=$3 size name package
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    # As Debian's policy counts it: each file in whole KiB, everything else one.
    size=$(find "$tree/usr" -type f -printf '%s\n' -o -printf '1\n' | awk '{ total += int(($1 + 1023) / 1024) } END { print total }')
    sed "s/@VERSION@/$version/; s/@MAINTAINER@/$maintainer/; s/@INSTALLED_SIZE@/$size/; ${4-}" "$control" >"$tree/DEBIAN/control"
    find "$tree" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
    name=$(sed -n 's/^Package: //p' "$control")_${version}_$(sed -n 's/^Architecture: //p' "$control").deb
    package=$out/$name
    mkdir -p "$out"
    dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$tree" "$package" >/dev/null || fail "dpkg-deb refuses; its message is above"
    echo "$(stat -c %s "$package") bytes  sha256 $(sha256sum <"$package" | cut -d' ' -f1)  $package"
}
