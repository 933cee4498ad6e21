# Programs that compute, at small tasks whose results are known (by themes.sh). `WHEELS` may name a folder with numpy's wheel.
. "${0%/*}/themes.sh"

t numpy python3 "[1.0, 2.0] 13.0 4.0 True True" '
python3 - <<P
import numpy, os, ctypes
a = numpy.array([[3., 1.], [1., 2.]])
x = numpy.linalg.solve(a, [5., 5.])
f = numpy.fft.fft([1., 0, 0, 0, 1, 2, 3, 6])
numpy.save("a.npy", a); b = numpy.load("a.npy", mmap_mode="r")
r = numpy.random.default_rng(7).normal(size=(300, 300))
u, s, v = numpy.linalg.svd(r)
print(x.round(9).tolist(), f[0].real, float(b[0, 0] + b[0, 1]), bool(numpy.allclose(u * s @ v, r)), numpy.__file__.startswith("/usr/lib/python3/dist-packages/numpy/"))
P'

[ -z "$WHEELS" ] || t pip-numpy python3 "True True 285.0 2" '
python3 -m venv v; v/bin/pip install -q --no-index --find-links="$WHEELS" numpy
v/bin/python - <<P
import numpy, sys, glob
from multiprocessing import get_context
maps = open("/proc/self/maps").read()
a = numpy.arange(10.)
print(numpy.__file__.startswith(sys.prefix), ".libs/" in maps, float(a @ a), len(set(get_context("fork").Pool(2).map(type, [1, 1.]))))
P'

t R Rscript "1.2 2.6 | -17.5791 3.9324 | 55 | sub | 2 4 6 | x.rds TRUE | 2" '
cat >a.R <<P
a <- matrix(c(2, 1, 1, 3), 2)
fit <- lm(dist ~ speed, cars)
saveRDS(fit, "x.rds")
cat(solve(a, c(5, 9)), "|", round(coef(fit), 4), "|", sum(as.integer(strsplit("1 2 3 4 5 6 7 8 9 10", " ")[[1]])), "|",
    system("echo sub", intern = TRUE), "|", unlist(parallel::mclapply(1:3, function(i) 2 * i, mc.cores = 2)), "|",
    dir(pattern = "rds"), all.equal(coef(readRDS("x.rds")), coef(fit)), "|", nchar(iconv("\u00e4\u00f6", "UTF-8", "latin1"), "bytes"), "\n", sep = " ")
P
Rscript a.R | sed "s/ *$//"'

t octave octave-cli "-360
1 0
sub
3" '
octave-cli --norc --eval "printf(\"%.0f\n\", det(magic(3))); a = inv([2 1; 1 1]); printf(\"%d %d\n\", round(a(1,1)), round(a(1,2)) + 1); [s, o] = system(\"echo sub\"); printf(\"%s\", o); x = [1 2 3]; save -binary f x; clear x; load f; disp(x(3))" '

t java javac "55 true here [a, b] 3628800 true" '
mkdir -p p/data; echo here >p/data/file; printf "a\nb\n" >lines
cat >p/Main.java <<P
package p;
import java.nio.file.*; import java.util.*; import java.util.concurrent.*; import java.util.stream.*; import java.io.*; import java.math.*; import java.net.*;
public class Main {
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        int sum = 0; List<Future<Integer>> all = new ArrayList<>();
        for (int i = 1; i <= 10; i++) { int n = i; all.add(pool.submit(() -> n)); }
        for (Future<Integer> f : all) sum += f.get();
        pool.shutdown();
        String text = new String(Main.class.getResourceAsStream("/p/data/file").readAllBytes()).trim();
        Process child = new ProcessBuilder("cat", "lines").start();
        List<String> lines = new BufferedReader(new InputStreamReader(child.getInputStream())).lines().collect(Collectors.toList());
        BigInteger f = BigInteger.ONE; for (int i = 2; i <= 10; i++) f = f.multiply(BigInteger.valueOf(i));
        boolean at = Paths.get("").toAbsolutePath().equals(Paths.get(System.getenv("PWD")).toRealPath());
        System.out.println(sum + " " + System.getProperty("java.home").startsWith("/usr/lib/jvm") + " " + text + " " + lines + " " + f + " " + at);
    }
}
P
javac -d out p/*.java; cp -r p/data out/p; jar cfe m.jar p.Main -C out . ; java -Xmx200m -jar m.jar'

t node node "832040 here sub worker 42 served true" '
echo "module.exports = { here: \"here\" }" >m.js
cat >a.js <<P
const { Worker, isMainThread, parentPort } = require("worker_threads");
if (!isMainThread) { parentPort.postMessage(42); return; }
const fs = require("fs"), http = require("http"), child = require("child_process");
const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2);
const sub = child.execSync("echo sub").toString().trim();
new Worker(__filename).on("message", n => {
    const server = http.createServer((q, r) => r.end("served")).listen("sock", () => http.get({ socketPath: "sock" }, r => r.on("data", d => {
        console.log(fib(30), require("./m").here, sub, "worker", n, d.toString(), fs.realpathSync(process.execPath).startsWith("/usr/bin/node")); server.close();
    })));
});
P
node a.js'

t mpi mpicc "rank 0 of 2 sum 3
rank 1 of 2 sum 3" '
cat >m.c <<P
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, size, sum, mine;
    MPI_Init(&argc, &argv); MPI_Comm_rank(MPI_COMM_WORLD, &rank); MPI_Comm_size(MPI_COMM_WORLD, &size);
    mine = rank + 1; MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    static double big[300000]; big[299999] = rank;
    if (rank == 0) MPI_Send(big, 300000, MPI_DOUBLE, 1, 0, MPI_COMM_WORLD); else { MPI_Recv(big, 300000, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE); if (big[299999] != 0) sum = -1; }
    printf("rank %d of %d sum %d\n", rank, size, sum); MPI_Finalize(); return 0;
}
P
mpicc -O1 m.c -o m; mpirun --oversubscribe -n 2 ./m | sort'

t gromacs gmx "SOL 466
Finished
150
near -20000" '
export GMX_MAXBACKUP=-1
printf "#include \"oplsaa.ff/forcefield.itp\"\n#include \"oplsaa.ff/spc.itp\"\n[ system ]\nwater\n[ molecules ]\n" >topol.top
printf "integrator = steep\nnsteps = 50\ncutoff-scheme = Verlet\nrcoulomb = 0.9\nrvdw = 0.9\ncoulombtype = PME\n" >min.mdp
printf "integrator = md\ndt = 0.002\nnsteps = 150\nnstenergy = 50\ncutoff-scheme = Verlet\ncoulombtype = PME\nrcoulomb = 0.9\nrvdw = 0.9\ntcoupl = v-rescale\ntc-grps = System\ntau-t = 0.1\nref-t = 300\ngen-vel = yes\ngen-seed = 1\nld-seed = 1\n" >md.mdp
{ gmx -quiet solvate -cs spc216.gro -box 2.4 2.4 2.4 -o conf.gro -p topol.top
gmx -quiet grompp -f min.mdp -c conf.gro -p topol.top -o min.tpr -po o.mdp; gmx -quiet mdrun -s min.tpr -deffnm min -ntmpi 1 -ntomp 1
gmx -quiet grompp -f md.mdp -c min.gro -p topol.top -o md.tpr -po o.mdp; gmx -quiet mdrun -s md.tpr -deffnm md -ntmpi 1 -ntomp 2 -pin off
echo Potential | gmx -quiet energy -f md.edr -o e.xvg; } >&2
tail -1 topol.top | tr -s " "; grep -o "^Finished" md.log; gmx -quiet dump -cp md.cpt 2>/dev/null | sed -n "s/^step = //p"; tail -1 e.xvg | awk "{ print (\$2 < -18000 && \$2 > -22000) ? \"near -20000\" : \$2 }"'
