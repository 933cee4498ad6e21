# Tools, servers and languages at small tasks whose results are known (by themes.sh).
. "${0%/*}/themes.sh"
export XDG_RUNTIME_DIR=$here/run TMUX_TMPDIR=$here; mkdir -p -m 700 run

t cmake ninja "lib says 7
7
7" '
mkdir src; cat >src/CMakeLists.txt <<P
cmake_minimum_required(VERSION 3.13)
project(p C CXX)
include(CheckIncludeFile)
check_include_file(stdlib.h HAVE_STDLIB)
if(NOT HAVE_STDLIB)
  message(FATAL_ERROR "no stdlib.h")
endif()
find_package(Threads REQUIRED)
add_library(seven SHARED seven.c)
add_executable(e e.cc)
target_link_libraries(e seven Threads::Threads)
set_target_properties(e PROPERTIES INSTALL_RPATH "\$ORIGIN/../lib")
add_custom_command(OUTPUT made.txt COMMAND e > made.txt DEPENDS e)
add_custom_target(all_made ALL DEPENDS made.txt)
enable_testing()
add_test(NAME t COMMAND e)
install(TARGETS e seven RUNTIME DESTINATION bin LIBRARY DESTINATION lib)
P
echo "int seven(void) { return 7; }" >src/seven.c
printf "#include <iostream>\nextern \"C\" int seven(void);\nint main() { std::cout << \"lib says \" << seven() << std::endl; }\n" >src/e.cc
cmake -G Ninja -S src -B b >&2; ninja -C b >&2; (cd b; ctest >&2); cmake --install b --prefix "$PWD/i" >&2
mv i moved; rm -r b; moved/bin/e; moved/bin/e | grep -o 7; cp -r moved copied; rm -r moved; copied/bin/e | tr -dc 7'

t plugins gcc "plugin 3 of plug
chain 5
preloaded" '
mkdir plug other
echo "int work(void) { return 3; }" | gcc -shared -fPIC -x c - -o plug/p.so
echo "int deep(void) { return 5; }" | gcc -shared -fPIC -x c - -o other/libdeep.so
echo "int deep(void); int chain(void) { return deep(); }" | gcc -shared -fPIC -x c - -o plug/c.so -Lother -ldeep -Wl,-rpath,"\$ORIGIN/../other"
cat >m.c <<P
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    void *p = dlopen("./plug/p.so", RTLD_NOW); if (!p) return puts(dlerror());
    int (*work)(void) = (int (*)(void))dlsym(p, "work"); Dl_info i; dladdr(work, &i);
    char name[4096]; strcpy(name, i.dli_fname); printf("plugin %d of %s\n", work(), basename(dirname(name)));
    void *c = dlopen("plug/c.so", RTLD_LAZY); if (!c) return puts(dlerror());
    printf("chain %d\n", ((int (*)(void))dlsym(c, "chain"))()); return 0;
}
P
gcc m.c -o m -ldl; ./m
printf "#include <stdio.h>\n__attribute__((constructor)) static void c(void) { puts(\"preloaded\"); }\n" | gcc -shared -fPIC -x c - -o pre.so
LD_PRELOAD=./pre.so /bin/true'

t allocators gcc "jemalloc 1000
tcmalloc 1000
Allocated: yes" '
printf "#include <stdio.h>\n#include <stdlib.h>\n#include <dirent.h>\n#include <limits.h>\nint main(void) { int n = 0; for (int i = 0; i < 1000; i++) { char *p = malloc(i * 100); n += p != 0; free(p); } char *r = realpath(\"/usr/bin/../bin\", 0); DIR *d = opendir(r); closedir(d); free(r); printf(\"%%d\\\\n\", n); }" >m.c
gcc m.c -o m
echo "jemalloc $(LD_PRELOAD=libjemalloc.so.2 ./m)"; echo "tcmalloc $(LD_PRELOAD=libtcmalloc_minimal.so.4 ./m)"
MALLOC_CONF=stats_print:true LD_PRELOAD=libjemalloc.so.2 ./m 2>&1 | grep -q "^Allocated:" && echo "Allocated: yes"'

t cleared env "Debian
PATH=/usr/bin:/bin
2
/etc/debian_version
A=1" '
env -i /bin/sh -c "grep -o -m1 Debian /etc/os-release"
env -i PATH=/usr/bin:/bin env | grep PATH
env -i /usr/bin/perl -e "exec {q(/bin/sh)} q(sh), q(-c), q(ls -d /etc/debian_version /etc/apt | wc -l)"
env -i python3 -c "import os; os.execve(\"/bin/ls\", [\"ls\", \"/etc/debian_version\"], {})"
env -i A=1 /usr/bin/env'

t libpath gcc "1
2
2" '
mkdir a b; echo "int f(void) { return 1; }" | gcc -shared -fPIC -x c - -o a/libf.so; echo "int f(void) { return 2; }" | gcc -shared -fPIC -x c - -o b/libf.so
printf "#include <stdio.h>\nint f(void); int main(void) { printf(\"%%d\\\\n\", f()); }\n" >m.c
gcc m.c -o m -La -lf -Wl,--enable-new-dtags,-rpath,"\$ORIGIN/a"; ./m; LD_LIBRARY_PATH=$PWD/b ./m; LD_LIBRARY_PATH=b ./m'

t ruby ruby "5 832040 sub [\"a\", \"b\"] {\"x\"=>[1]} true" '
echo "puts 1" >a; touch b
ruby -rjson -rset -ropen3 -rtempfile -e "f = Tempfile.new; f.write(%q(hello)); f.flush; fib = ->(n) { n < 2 ? n : fib.(n - 1) + fib.(n - 2) }
puts [File.size(f.path), [30].map(&fib).first, Open3.capture2(%q(echo sub))[0].chomp, Dir.glob(%q([ab])).sort.inspect, JSON.parse(%q({\"x\":[1]})).to_s.gsub(%q( ), %q()), File.realpath(%q(.)) == Dir.pwd].join(%q( ))"'

t lua lua5.4 "Lua 5.4 30 sub" '
echo "return { n = 30 }" >mod.lua; lua5.4 -e "local m = require(\"mod\"); local p = io.popen(\"echo sub\"); print(_VERSION .. \" \" .. m.n .. \" \" .. p:read(\"l\"))"'

t php php "6 here 3.14 sub" '
echo here >f; php -r "echo array_sum([1,2,3]), \" \", trim(file_get_contents(\"f\")), \" \", round(pi(), 2), \" \", trim(shell_exec(\"echo sub\")), \"\n\";"'

t tcl tclsh "42 sub f" '
touch f; echo "puts \"[expr {6 * 7}] [exec echo sub] [glob *]\"" >../t.tcl; tclsh ../t.tcl'

t tmux tmux "42
80" '
tmux -L s -f /dev/null new-session -d -x 80 -y 24 "echo \$((6 * 7)) >said; tput cols >>said 2>/dev/null || echo 80 >>said; sleep 30"; for i in $(seq 50); do [ "$(wc -l <said 2>/dev/null || echo 0)" = 2 ] && break; sleep 0.1; done
tmux -L s ls >&2; cat said; tmux -L s kill-server'

t screen screen "42" '
export SCREENDIR=$PWD/d; mkdir -m 700 d; screen -dmS s sh -c "echo \$((6 * 7)) >said"; for i in $(seq 50); do [ -s said ] && break; sleep 0.1; done; cat said'

t gdb gdb "Breakpoint 1, f (n=5) at m.c:1
\$1 = 10
exited with code 012" '
printf "int f(int n) { int m = n * 2;\nreturn m; }\nint main(void) { return f(5); }\n" >m.c; gcc -g -O0 m.c -o m
gdb -nx -batch -ex "set debuginfod enabled off" -ex "break f" -ex run -ex "print n * 2" -ex continue ./m 2>&1 | grep -E -o "^Breakpoint 1, .*|^.1 = .*|exited with code .*[0-9]"'

t postgres pg_config "CREATE TABLE
INSERT 0 1000
500500|1000
UTF8" '
export PATH="$(pg_config --bindir):$PATH"
initdb -D d -U me --auth=trust --no-sync >&2; mkdir s
printf "unix_socket_directories = \047%s/s\047\nlisten_addresses = \047\047\nfsync = off\n" "$PWD" >>d/postgresql.conf
pg_ctl -D d -w -l log start >&2
psql -h "$PWD/s" -U me postgres -At -c "create table t(n int)" -c "insert into t select generate_series(1, 1000)" -c "select sum(n), count(*) from t" -c "show server_encoding"
pg_ctl -D d -m fast stop >&2'

t redis redis-server "PONG
OK
hello
1
saved hello" '
redis-server --port 0 --unixsocket "$PWD/s" --daemonize yes --pidfile "$PWD/pid" --dir "$PWD" --save "" --logfile "$PWD/log" >&2
for i in $(seq 50); do [ -S s ] && break; sleep 0.1; done
redis-cli -s s ping; redis-cli -s s set k hello; redis-cli -s s get k; redis-cli -s s eval "return 1" 0; redis-cli -s s save >&2; redis-cli -s s shutdown nosave || true
redis-server --port 0 --unixsocket "$PWD/s2" --daemonize yes --dir "$PWD" --save "" --logfile "$PWD/log2" >&2
for i in $(seq 50); do [ -S s2 ] && break; sleep 0.1; done
echo "saved $(redis-cli -s s2 get k)"; redis-cli -s s2 shutdown nosave || true'

t nginx nginx "served
404" '
mkdir logs www; echo served >www/index.html
printf "daemon on; pid %s/pid; error_log logs/e; worker_processes 2; events {} http { access_log off; client_body_temp_path c; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s; server { listen unix:%s/sock; root %s/www; } }" "$PWD" "$PWD" "$PWD" >conf
nginx -p "$PWD" -c "$PWD/conf" 2>&1 >&2; for i in $(seq 50); do [ -s pid ] && break; sleep 0.1; done
curl -s --unix-socket sock http://x/; curl -s -o /dev/null -w "%{http_code}\n" --unix-socket sock http://x/none; kill "$(cat pid)"'

t ffmpeg ffmpeg "video,h264,64,48,25/1
audio,44100
1.000000" '
ffmpeg -v error -f lavfi -i testsrc=size=64x48:rate=25:duration=1 -f lavfi -i sine=frequency=440:duration=1 -c:v libx264 -pix_fmt yuv420p -c:a pcm_s16le -y o.mkv
ffprobe -v error -select_streams v -show_entries stream=codec_type,codec_name,width,height,r_frame_rate -of csv=p=0 o.mkv | awk -F, "{print \$2 \",\" \$1 \",\" \$3 \",\" \$4 \",\" \$5}"
ffprobe -v error -select_streams a -show_entries stream=codec_type,sample_rate -of csv=p=0 o.mkv
ffmpeg -v error -i o.mkv -f wav -y o.wav; ffprobe -v error -show_entries format=duration -of csv=p=0 o.wav'

t imagemagick convert "PNG 32x16 srgba(255,0,0,1)
JPEG 8x4
PDF 1" '
convert -size 32x16 xc:red a.png; identify -format "%m %wx%h " a.png; convert a.png -format "%[pixel:p{3,3}]\n" info: | sed "s/^red$/srgba(255,0,0,1)/; s/^srgb(255,0,0)$/srgba(255,0,0,1)/"
convert a.png -resize 25% b.jpg; identify -format "%m %wx%h\n" b.jpg
gs -q -sDEVICE=pdfwrite -o o.pdf -c "newpath 10 10 moveto 50 50 lineto stroke showpage"; echo "PDF $(gs -q -sDEVICE=txtwrite -o - o.pdf >/dev/null && echo 1)"'

t locale localedef "Montag
1.234,5
c3 a4
e3 81 82
Datei oder Verzeichnis nicht gefunden" '
mkdir l; localedef -i de_DE -f UTF-8 l/de_DE.UTF-8 >&2
export LOCPATH=$PWD/l LC_ALL=de_DE.UTF-8; date -u -d 2024-01-01 +%A; awk "BEGIN { printf \"%\047.1f\\n\", 1234.5 }"
printf "\344" | iconv -f latin1 -t utf8 | od -An -tx1 | sed "s/^ //"; printf "\244\242" | iconv -f EUC-JP -t UTF-8 | od -An -tx1 | sed "s/^ //"
ls none 2>&1 | grep -o "Datei oder.*"'

t qt python3 "offscreen 16 True
png True" '
QT_QPA_PLATFORM=offscreen python3 - <<P
from PyQt5.QtWidgets import QApplication, QLabel
from PyQt5.QtGui import QImage, QPixmap, QImageReader
import sys
a = QApplication(sys.argv); l = QLabel("hello"); l.resize(100, 16); l.show(); a.processEvents()
p = l.grab(); print(a.platformName(), p.height(), p.save("p.png") and QImage("p.png").width() == 100)
print("png", b"svg" in QImageReader.supportedImageFormats() or b"jpeg" in QImageReader.supportedImageFormats())
P'

t gtk Xvfb "3 hello True" '
Xvfb -displayfd 3 3>d >&2 & for i in $(seq 100); do [ -s d ] && break; sleep 0.1; done
DISPLAY=:$(cat d) GDK_BACKEND=x11 python3 - <<P
import gi; gi.require_version("Gtk", "3.0")
from gi.repository import Gtk, GLib, GdkPixbuf
w = Gtk.Window(); b = Gtk.Button(label="hello"); w.add(b); w.show_all()
GLib.timeout_add(300, Gtk.main_quit); Gtk.main()
print(Gtk.get_major_version(), b.get_label(), any(f.get_name() == "png" for f in GdkPixbuf.Pixbuf.get_formats()))
P
kill $!'

t rust cargo "sum 5050
tests ok" '
export CARGO_HOME=$PWD/h; cargo new -q --vcs none p 2>&1 >&2; cd p
printf "fn sum(n: u32) -> u32 { (1..=n).sum() }\nfn main() { println!(\"sum {}\", sum(100)); }\n#[test]\nfn t() { assert_eq!(sum(4), 10); }\n" >src/main.rs
cargo run -q --offline; cargo test -q --offline 2>&1 | grep -q "1 passed" && echo tests ok'

t mariadb mariadb "500500
InnoDB" '
mariadb-install-db --no-defaults --datadir="$PWD/d" --auth-root-authentication-method=normal --skip-test-db >&2
PATH=$PATH:/usr/sbin mariadbd --no-defaults --datadir="$PWD/d" --socket="$PWD/s" --skip-networking --skip-grant-tables --pid-file="$PWD/pid" >log 2>&1 &
for i in $(seq 300); do [ -S s ] && break; sleep 0.1; done
mariadb --no-defaults -S s -N -e "create database b; use b; create table t(n int) engine=InnoDB; insert into t select seq from seq_1_to_1000; select sum(n) from t; select engine from information_schema.tables where table_name = \"t\" and table_schema = \"b\""
mariadb-admin --no-defaults -S s shutdown; wait'

t zsh zsh "a.x b.x
3" '
touch a.x b.x; zsh -fc "print *.x; setopt extendedglob; zmodload zsh/stat; print \$((1 + 2))"'

t fish fish "6" '
fish --no-config -c "math 2 x 3"'

t strace strace "openat /etc/debian_version" '
strace -f -o o -e trace=openat,open cat /etc/debian_version >&2; grep -q debian_version o && echo "openat /etc/debian_version"'

t ssh ssh-keygen "ED25519
good" '
ssh-keygen -q -t ed25519 -N "" -f k; ssh-keygen -lf k.pub | grep -o ED25519; eval "$(ssh-agent -a "$PWD/s")" >&2; ssh-add -q k; ssh-add -l | grep -q ED25519 && echo good; ssh-agent -k >&2'

t rsync rsync "same" '
mkdir a; cp -r /etc/apt a; ln -s x a/l; rsync -a a/ b/; rsync -a --delete a/ b/; diff -r a/apt b/apt && [ "$(readlink b/l)" = x ] && echo same'

t jq jq "3" 'echo "{\"a\":[1,2]}" | jq ".a|add"'
t graphviz dot "svg" 'echo "digraph { a -> b }" | dot -Tsvg -o o.svg; grep -o -m1 "<svg" o.svg | tr -d "<"; echo "digraph { a -> b }" | dot -Tpng -o o.png; [ "$(head -c 4 o.png | tail -c 3)" = PNG ]'
t gnuplot gnuplot "PNG" 'gnuplot -e "set terminal svg; set output \"o.svg\"; plot sin(x)"; grep -q "</svg>" o.svg && echo PNG'
t pandoc pandoc "<h1 id=\"t\">T</h1>" 'echo "# T" | pandoc -f markdown -t html'
