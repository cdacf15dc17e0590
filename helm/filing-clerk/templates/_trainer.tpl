{{/*
A CronJob of the trainer's image. (list root part job), where job has schedule, steps (arguments of
clerk-trainer, one container each), workingDir ($(RUN) is a folder of the job's own there) and volumes
(name, mountPath, readOnly, source).
*/}}
{{- define "filing-clerk.trainerCron" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $job := index . 2 }}
{{- $trainer := $root.Values.trainer }}
{{- $last := sub (len $job.steps) 1 | int }}
# Always a CronJob: a Job cannot be changed, and a finished and deleted Job would run again with the next upgrade.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "filing-clerk.part" (list $root $part) | quote }}
  namespace: {{ include "filing-clerk.namespace" $root | quote }}
  labels:
    {{- include "filing-clerk.labels" (list $root $part) | nindent 4 }}
spec:
  schedule: {{ $job.schedule | default "0 0 1 1 *" | quote }}
  suspend: {{ empty $job.schedule }}
  # Two trainers would compete for the store's lock.
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        {{- include "filing-clerk.labels" (list $root $part) | nindent 8 }}
    spec:
      activeDeadlineSeconds: {{ $trainer.activeDeadlineSeconds | int }}
      backoffLimit: {{ $trainer.backoffLimit | int }}
      podFailurePolicy:
        rules:
          # Bad input, a refusal by the gate, a failed verification: another attempt would give the same result.
          # 130 (interrupted) and 1 (unexpected) are retried.
          - action: FailJob
            onExitCodes:
              operator: In
              values: [2, 3, 4]
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: "True"
      template:
        metadata:
          labels:
            {{- include "filing-clerk.podLabels" (list $root $part dict) | nindent 12 }}
        spec:
          restartPolicy: Never
          {{- include "filing-clerk.podBasics" $root | nindent 10 }}
          {{- include "filing-clerk.bucketAccount" $root | nindent 10 }}
          {{- with pick ($root.Values.workerPodSpec | default dict) "runtimeClassName" }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
          {{- include "filing-clerk.nodeSelector" (list $root $trainer.nodeSelector) | nindent 10 }}
          {{- with $root.Values.tolerations }}
          tolerations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- range $index, $step := $job.steps }}
          {{- if and (eq $index 0) (gt $last 0) }}
          initContainers:
          {{- end }}
          {{- if eq $index $last }}
          containers:
          {{- end }}
            - name: {{ printf "step-%d" $index | quote }}
              image: {{ include "filing-clerk.image" (list $root $trainer.image) | quote }}
              imagePullPolicy: {{ $trainer.image.pullPolicy }}
              workingDir: {{ $job.workingDir }}
              command: [clerk-trainer]
              args:
                {{- toYaml $step | nindent 16 }}
              env:
                - name: JOB
                  valueFrom:
                    fieldRef:
                      fieldPath: metadata.labels['batch.kubernetes.io/job-name']
                - name: RUN
                  value: {{ $job.workingDir }}/$(JOB)
                - name: BASE
                  value: {{ $root.Values.config.model.base | quote }}
                - name: STORE
                  value: {{ include "filing-clerk.bucket" $root | default $root.Values.storage.adapters.mountPath | quote }}
                {{- include "filing-clerk.bucketEnv" $root | nindent 16 }}
              {{- include "filing-clerk.bucketEnvFrom" $root | nindent 14 }}
              resources:
                {{- include "filing-clerk.resources" (list $trainer.resources $trainer.gpuCount $root.Values.gpu.resource) | nindent 16 }}
              {{- with $root.Values.securityContext }}
              securityContext:
                {{- toYaml . | nindent 16 }}
              {{- end }}
              volumeMounts:
                # A single file, so that the image's own taxonomy and gate in this folder stay.
                - name: recipe
                  mountPath: /etc/filing-clerk/trainer.toml
                  subPath: trainer.toml
                  readOnly: true
                {{- range $volume := $job.volumes }}
                - name: {{ $volume.name }}
                  mountPath: {{ $volume.mountPath }}
                  {{- if $volume.readOnly }}
                  readOnly: true
                  {{- end }}
                {{- end }}
                {{- include "filing-clerk.modelMounts" (list $root (list "adapters")) | nindent 16 }}
                - name: cache
                  mountPath: /var/cache/filing-clerk
                - name: shm
                  mountPath: /dev/shm
                - name: tmp
                  mountPath: /tmp
          {{- end }}
          volumes:
            - name: recipe
              configMap:
                name: {{ include "filing-clerk.part" (list $root "trainer") | quote }}
            {{- range $volume := $job.volumes }}
            - name: {{ $volume.name }}
              {{- toYaml $volume.source | nindent 14 }}
            {{- end }}
            {{- include "filing-clerk.modelVolumes" $root | nindent 12 }}
            - name: cache
              emptyDir:
                sizeLimit: {{ $root.Values.storage.cache.sizeLimit | quote }}
            - name: shm
              emptyDir:
                medium: Memory
                sizeLimit: {{ $root.Values.storage.shm.sizeLimit | quote }}
            - name: tmp
              emptyDir:
                sizeLimit: {{ $root.Values.storage.tmp.sizeLimit | quote }}
{{- end }}
