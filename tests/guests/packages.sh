# Makes packages of Alpine's format: hello, versions 1-r0 and 2-r0, below ./repo. Run by sh, with GNU tar, in an empty directory.
set -e
part() { # FILE: one member of an archive, with its checksum
    if [ -h "$1" ]; then sum=$(readlink -n "$1" | sha1sum); else sum=$(sha1sum <"$1"); fi
    tar --format=pax --owner=0 --group=0 "--pax-option=APK-TOOLS.checksum.SHA1:=${sum%% *}" -b1 -c "$1" | head -c -1024
}
mkdir -p repo/x86_64
for version in 1-r0 2-r0; do
    rm -rf p c; mkdir -p p/opt/bin p/etc c
    printf '#!/bin/sh\necho hello %s\n' $version >p/opt/bin/hello; chmod 755 p/opt/bin/hello; echo "version=$version" >p/etc/hello.conf
    ln -s hello p/opt/bin/hi
    (cd p; tar --owner=0 --group=0 --no-recursion -b1 -c opt opt/bin etc | head -c -1024; part opt/bin/hello; part opt/bin/hi; part etc/hello.conf; head -c 1024 /dev/zero) | gzip -n >data.gz
    printf 'pkgname = hello\npkgver = %s\npkgdesc = says hello\nsize = 100\narch = x86_64\nlicense = MIT\ndatahash = %s\n' $version "$(sha256sum <data.gz | cut -d' ' -f1)" >c/.PKGINFO
    printf '#!/bin/sh\nid -u >/var/hello.%s\n' $version | tee c/.post-install >c/.post-upgrade; chmod 755 c/.post-*
    tar -C c --owner=0 --group=0 -b1 -c .PKGINFO .post-install .post-upgrade | head -c -1024 | gzip -n >c.gz
    cat c.gz data.gz >repo/x86_64/hello-$version.apk
done
