# Alpine's own tools: packages (made by packages.sh) installed, looked at, repaired and removed by the run's own root, in a view
# that can be written; accounts; busybox. By themes.sh.
. "${0%/*}/themes.sh"

t version apk "apk-tools 2 x86_64" 'apk --version | sed "s/\(apk-tools 2\).*, compiled for \(.*\)\./\1 \2/"'

t installed apk "busybox musl
/bin/busybox busybox
0" 'apk info -e busybox musl | tr "\n" " " | sed "s/ $//"; echo; apk info -W /bin/busybox | sed -n "s/ is owned by \(busybox\)-[0-9].*/ \1/p"; apk audit --system | grep -c "^[AXU] .*bin/" || true'

t packages apk "hello 1-r0
0
hello-1-r0
hello 2-r0
mine
hello 2-r0
hello-2-r0 description:
/opt/bin/hello is owned by hello-2-r0
gone" '
apk="apk --allow-untrusted --no-network --repositories-file=/dev/null -X $PWD/repo -q"; index() { (cd repo/x86_64; apk index --allow-untrusted -q -o APKINDEX.tar.gz *.apk); }
cp -r "$REPOSITORY" .; mv repo/x86_64/hello-2* .; index; $apk add hello; /opt/bin/hello; cat /var/hello.1-r0; apk info -v hello 2>/dev/null | grep "^hello-1-r0$" || apk info -v | grep "^hello-1"
echo mine >/etc/hello.conf; mv hello-2* repo/x86_64; index; $apk upgrade hello; /opt/bin/hi; cat /etc/hello.conf; [ -e /etc/hello.conf.apk-new ]
echo broken >/opt/bin/hello; rm /opt/bin/hi; $apk fix hello; /opt/bin/hi
apk info -d hello | head -1; apk info -W /opt/bin/hello; $apk del hello; [ -e /opt/bin/hello ] || echo gone'

t accounts adduser "u:x:1500:1500:Linux User,,,:/home/u:/bin/sh
/home/u
g:x:1600:u" 'chmod 755 /; adduser -D -s /bin/sh -u 1500 u; grep ^u: /etc/passwd; su u -c "echo \$HOME"; addgroup -g 1600 g; addgroup u g; grep ^g: /etc/group'

t busybox busybox "600
a b
5
ok
08ae78c6517d89241208de2211996ae8
x
1 2" '
busybox --list | wc -l | awk "{ print (\$1 > 250) ? 600 : \$1 }"; touch b a; ls | xargs; seq 5 | awk "END { print NR }"; mkdir d; cp -r /etc d/; tar cf t.tar -C d . ; mkdir e; tar xf t.tar -C e; diff -r d e && echo ok
yes | head -c 1000000 | md5sum | cut -d" " -f1; echo x | gzip | gunzip; printf "2\n1\n" | sort | xargs'
