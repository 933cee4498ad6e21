#!/bin/sh
#SBATCH --array=1-8
#SBATCH --output=primes.%a.out
#SBATCH --requeue
exec ./primes.run "$SLURM_ARRAY_TASK_ID"
