cd /opt/lic-distillery
exec python jobs/sweep_feds.py \
  --spec /etc/lic-distillery/spec.yaml \
  --set results=s3://lic-distillery/runs \
  --set store=s3://lic-distillery/store \
  --set node_cache.folder=/scratch \
  --set preemption.grace_s=80
