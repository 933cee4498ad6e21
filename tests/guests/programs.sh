# Ordinary programs at ordinary work, each theme told as `ok NAME` or `fails NAME`: run by sh in an empty /work, with no
# network. What is not installed fails, natively too: only the comparison with a chroot of the same tree says anything.
# Why a theme failed goes to standard error.
cd /work || exit 1
export HOME=/work TERM=xterm LC_ALL=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
t() {
    name=$1
    shift
    if said=$("$@" 2>&1 </dev/null); then
        echo "ok $name"
    else
        echo "fails $name"
        echo "$name: $(echo "$said" | tail -3)" >&2
    fi
}
t sh sh -c 'for i in 1 2 3; do echo $i; done | wc -l | grep -q 3'
t coreutils sh -c 'mkdir d && touch d/a && cp -a d e && mv e f && ln -s f g && ls -lR >/dev/null && stat g && readlink -f g | grep -q /work/f && df . && du -s . && id && mktemp && install -m 755 d/a d/b && touch -d 2020-01-01 d/a && chmod 600 d/a && sync d/a && truncate -s 10k d/a && shred -u d/b && rm -r d f g'
t find sh -c 'find /usr/share -name "*.txt" -newer /etc/passwd | wc -l; find /etc -xdev -type f -exec stat -c %n {} + | wc -l | grep -qv "^0$"'
t tar sh -c 'tar cf t.tar -C /etc . 2>/dev/null; mkdir t && tar xf t.tar -C t && diff -r /etc/apt t/apt && rm -rf t t.tar'
t git sh -c 'git init -q r && cd r && git config user.email a@b && git config user.name n && cp -r /etc/apt . && git add . && git commit -qm one && git gc -q && cd .. && git clone -q r r2 && cd r2 && git log | grep -q one && git checkout -q -b x && git status --short && git fsck && cd .. && git clone -q file:///work/r r3 && cd r3 && echo a > n && git add n && git -c user.email=a@b -c user.name=n commit -qm t && git push -q origin HEAD:refs/heads/y && git worktree add ../wt -q -b wtb 2>&1'
t venv sh -c 'python3 -m venv v && . v/bin/activate && python -c "import sys; assert sys.prefix == \"/work/v\", sys.prefix; import ssl, sqlite3, subprocess, multiprocessing as m; print(m.Pool(2).map(abs, [1,-2]))" && pip --version && python -m compileall -q v/lib >/dev/null'
t python-stdlib python3 -c 'import os,shutil,tempfile,glob,pathlib,socket,threading,asyncio
d=tempfile.mkdtemp(); p=pathlib.Path(d)/"x"; p.write_text("a"); os.rename(p, str(p)+"2"); assert glob.glob(d+"/*"); shutil.copytree("/etc/apt", d+"/t"); shutil.rmtree(d)
s=socket.socketpair(); s[0].send(b"x"); assert s[1].recv(1)==b"x"
async def m():
    p=await asyncio.create_subprocess_exec("echo","hi",stdout=asyncio.subprocess.PIPE); o,_=await p.communicate(); assert o==b"hi\n"
asyncio.run(m())
assert os.path.realpath("/proc/self/exe").startswith("/usr/bin/python3"), os.path.realpath("/proc/self/exe")
assert os.getcwd()=="/work"
fd=os.memfd_create("x"); os.write(fd,b"a")
os.posix_spawn("/bin/true",["true"],os.environ); os.wait()'
t perl perl -e 'use File::Temp; use File::Find; use Cwd; my $n=0; find(sub{$n++}, "/etc"); die unless $n>20; opendir(D,"/usr/bin") or die; my @f=readdir D; die unless @f>50; die unless cwd() eq "/work"; system("true")==0 or die; my $o=`echo hi`; die unless $o eq "hi\n"; rename "nonex","y" and die; use POSIX; my($fh,$fn)=File::Temp::tempfile(); unlink $fn; fork or exit 0; wait'
t gcc sh -c 'cat > h.c <<X
#include <stdio.h>
#include <pthread.h>
static void *f(void*a){return a;}
int main(void){pthread_t t; pthread_create(&t,0,f,0); pthread_join(t,0); puts("hi"); return 0;}
X
gcc -O2 -pthread h.c -o h && ./h | grep -q hi && gcc -static -pthread h.c -o hs && ./hs | grep -q hi && gcc -static-pie -pthread h.c -o hp && ./hp | grep -q hi && gcc -shared -fPIC h.c -o libh.so && gcc -g -flto h.c -o hl && ./hl && file h 2>/dev/null | grep -q ELF'
t g++ sh -c 'printf "#include <iostream>\n#include <filesystem>\nint main(){int n=0; for(auto&p:std::filesystem::directory_iterator(\"/etc\"))n++; std::cout<<std::filesystem::canonical(\"/bin/..\")<<n; return n<5;}" > x.cc && g++ -std=c++17 x.cc -o x -lstdc++fs && ./x'
t go sh -c 'export GOPATH=/work/gopath GOTMPDIR=/work GOCACHE=/work/gocache GOFLAGS=-mod=mod GOPROXY=off GO111MODULE=on && mkdir gow && cd gow && cat > main.go <<X
package main
import ("fmt"; "net"; "os"; "os/exec"; "path/filepath"; "sync")
func main() {
    n := 0
    filepath.Walk("/etc", func(string, os.FileInfo, error) error { n++; return nil })
    self, _ := os.Executable(); here, _ := os.Getwd()
    out, _ := exec.Command("/bin/sh", "-c", "readlink -f /proc/self/cwd").Output()
    var all sync.WaitGroup
    for i := 0; i < 50; i++ { all.Add(1); go func() { defer all.Done(); os.ReadFile("/etc/passwd") }() }
    all.Wait(); listener, _ := net.Listen("unix", "/work/gow/sock"); listener.Close()
    _, missing := os.Stat("/none")
    fmt.Println(n > 20, self, here, string(out), missing)
}
X
go mod init m && CGO_ENABLED=0 go build -o static . && go build -o dynamic . && ./static > a && ./dynamic > b && grep -q "^true /work/gow/static /work/gow /work/gow" a && grep -q "^true /work/gow/dynamic" b && go vet .'
t make sh -c 'mkdir m && cd m && for i in $(seq 40); do echo "int f$i(void){return $i;}" > f$i.c; done && printf "O=\$(patsubst %%.c,%%.o,\$(wildcard *.c))\nlib.a: \$(O)\n\tar rcs \$@ \$^\n" > Makefile && make -j4 && ar t lib.a | wc -l | grep -q 40'
t cmake sh -c 'mkdir cm && cd cm && printf "cmake_minimum_required(VERSION 3.10)\nproject(p C CXX)\nadd_library(l SHARED l.c)\nadd_executable(e e.c)\ntarget_link_libraries(e l)\nenable_testing()\nadd_test(NAME t COMMAND e)\ninstall(TARGETS e l)\n" > CMakeLists.txt && echo "int l(void){return 0;}" > l.c && echo "int l(void); int main(void){return l();}" > e.c && cmake -S . -B b && cmake --build b -j3 && cd b && ctest && cmake --install . --prefix /work/cm/inst && /work/cm/inst/bin/e || LD_LIBRARY_PATH=/work/cm/inst/lib /work/cm/inst/bin/e'
t dpkg sh -c 'dpkg -l | wc -l; dpkg -S /bin/sh /usr/bin/perl; dpkg --verify bash; apt-cache policy bash; dpkg-query -W | wc -l'
t dpkg-deb sh -c 'mkdir -p pk/DEBIAN pk/usr/share/x && printf "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n" > pk/DEBIAN/control && dpkg-deb -b pk x.deb && dpkg-deb -c x.deb && dpkg-deb -x x.deb pkx'
t sqlite sh -c 'sqlite3 a.db "pragma journal_mode=wal; create table t(a); insert into t values(1); select * from t;" && sqlite3 a.db "vacuum; select count(*) from t" | grep -q 1'
t openssl sh -c 'openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=x && openssl verify -CAfile c.pem c.pem && echo x | openssl enc -aes-256-cbc -pbkdf2 -pass pass:a | openssl enc -d -aes-256-cbc -pbkdf2 -pass pass:a | grep -q x'
t bashjobs bash -ic 'sleep 1 & jobs | grep -q Running && kill %1; wait; (sleep 0.1; exit 3) & wait $!; test $? = 3'
t script script -qec 'bash -ic "sleep 5 & jobs; kill %1; fg" || true; stty size; tty' /dev/null
t tmux sh -c 'export TMUX_TMPDIR=/work; tmux new-session -d -s s "echo hi > tm; sleep 20" && sleep 1 && tmux ls | grep -q s && tmux send-keys -t s x && tmux kill-server && grep -q hi tm'
t vim vim -u NONE -es -c 'call writefile(["a"], "v1")' -c 'e v1' -c 's/a/b/' -c 'wq'
t vimcheck grep -q b v1
t procps sh -c 'ps aux | wc -l; pgrep -f . | head -2; free; uptime; top -bn1 | head -3; pidof sh || true'
t xargs sh -c 'ls /usr/bin | xargs -P4 -n10 echo | wc -l'
t pipesig sh -c 'yes | head -1; sh -c "kill -TERM \$\$"; test $? = 143'
t timeout sh -c 'timeout 0.2 sleep 5; test $? = 124'
t locale sh -c 'locale -a; iconv -f utf8 -t latin1 </dev/null; getent passwd root; true'
t ldd sh -c 'ldd /bin/ls | grep -q libc'
t gdb-core sh -c 'ulimit -c unlimited; echo "int main(void){__builtin_trap();}" > tr.c && gcc -g tr.c -o tr && gdb -batch -ex "info functions main" ./tr | grep -q main'
t flock sh -c 'flock lk -c true; exec 9>lk; flock -n 9'
t fifo sh -c 'mkfifo ff; echo a > ff & cat ff | grep -q a'
t many sh -c 'i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done'
