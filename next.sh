. /work/wt/s6f-env.sh
echo THIRD
python /work/wt/tools/runnb.py --write nbs/10_studies/32_watched.ipynb nbs/10_studies/33_hardening.ipynb
