cd /opt/lic-distillery
exec python jobs/sweep_feds.py \
  --spec /etc/lic-distillery/spec.yaml \
  --set results=/data/runs \
  --set store=/data/store \
  --set node_cache.folder=/tmp/lic-distillery \
  --set preemption.grace_s=50
