# The trainer for a node without a GPU, made on the demo's image in seconds: that has PyTorch already, and packages/ holds what of
# locks/image-trainer.txt it has not (.ci/cluster). Not the image that is released: that one is the Dockerfile's.
ARG IMAGE=filing-clerk-worker-cpu-demo:dev
FROM ${IMAGE}
COPY packages /opt/trainer
ENV PYTHONPATH=/opt/trainer
ENTRYPOINT ["clerk-trainer"]
CMD ["--help"]
