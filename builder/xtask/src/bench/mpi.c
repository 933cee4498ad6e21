/* Measures itself after MPI_Init: prints, from rank 0, how many nanoseconds a round trip and an allreduce take, each of a small
 * message and of a large one: `pingpong SMALL LARGE allreduce SMALL LARGE`. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 8, LARGE = 1 << 20, BLOCKS = 40 };

static int rank;
static char *out, *in;

static void pingpong(int length)
{
    if (rank == 0) {
        MPI_Send(out, length, MPI_CHAR, 1, 0, MPI_COMM_WORLD);
        MPI_Recv(in, length, MPI_CHAR, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    } else if (rank == 1) {
        MPI_Recv(in, length, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        MPI_Send(out, length, MPI_CHAR, 0, 0, MPI_COMM_WORLD);
    }
}

static void allreduce(int length)
{
    MPI_Allreduce(out, in, length / 8, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of many blocks: what else the node does disturbs a few of them. */
static double measure(void (*what)(int), int length, int times)
{
    double blocks[BLOCKS];
    for (int block = -4; block < BLOCKS; block++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        for (int i = 0; i < times; i++)
            what(length);
        if (block >= 0)
            blocks[block] = (MPI_Wtime() - start) / times;
    }
    qsort(blocks, BLOCKS, sizeof *blocks, order);
    return blocks[BLOCKS / 2] * 1e9;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    out = malloc(LARGE);
    in = malloc(LARGE);
    memset(out, 0, LARGE);
    memset(in, 0, LARGE);
    double small = measure(pingpong, SMALL, 2000), large = measure(pingpong, LARGE, 20);
    double few = measure(allreduce, SMALL, 2000), many = measure(allreduce, LARGE, 10);
    if (rank == 0)
        printf("%.0f %.0f %.0f %.0f\n", small, large, few, many);
    MPI_Finalize();
    return 0;
}
