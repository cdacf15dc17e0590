{{/* Checks that a JSON schema cannot express. All problems are reported at once, each with its fix. */}}

{{/* Places in config that hold a secret: (list path value), one per line. The worker masks the same names. Only names that
     end in "token" count: sasl_token_callback and sasl.oauthbearer.token.endpoint.url are not secrets. */}}
{{- define "filing-clerk.secretsIn" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $inner := $value -}}
{{- if and (not (kindIs "invalid" $inner)) (not (hasSuffix "_file" $key)) (regexMatch "password|passphrase|secret|jaas|key\\.pem|user\\.info|(^|[._-])token$" (lower $key)) }}
{{ $path }}.{{ $key }}
{{- else -}}
{{- include "filing-clerk.secretsIn" (list (printf "%s.%s" $path $key) $inner) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $index, $inner := $value -}}
{{- include "filing-clerk.secretsIn" (list (printf "%s[%d]" $path $index) $inner) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "filing-clerk.problems" -}}
{{- $config := .Values.config -}}
{{- $kafka := $config.kafka | default dict -}}
{{- $model := $config.model | default dict -}}
{{- $http := $config.http | default dict -}}
{{- $auth := .Values.auth -}}
{{- $scaling := .Values.autoscaling -}}

{{- if not .Values.image.repository }}
- image.repository is empty: name the image that you pushed (registry.example/clerk/worker)
{{- end }}
{{- if not $kafka.bootstrap_servers }}
- config.kafka.bootstrap_servers is empty: name the cluster (host:port[,host:port...])
{{- end }}
{{- $bucket := include "filing-clerk.bucket" . }}
{{- if not $model.base }}
{{- if eq .Values.adapterKind "lora-code" }}
- config.model.base is empty: name the base model's directory in the pod (/models/Qwen2.5-7B-Instruct), or set adapterKind to encoder or embedding-linear, if the adapters contain their whole model
{{- end }}
{{- else if not (hasPrefix "/" $model.base) }}
- config.model.base is {{ $model.base | quote }}: use an absolute path in the pod
{{- end }}
{{- if not $model.adapter }}
- config.model.adapter is empty: name an adapter's directory or a store in the pod (/adapters), or a store's URL (s3://, gs:// or az://BUCKET/PREFIX)
{{- else if not (or (hasPrefix "/" $model.adapter) $bucket) }}
- config.model.adapter is {{ $model.adapter | quote }}: use an absolute path in the pod, or the URL of a bucket (s3://, gs://, az://)
{{- end }}
{{- if and $bucket (or .Values.storage.adapters.volume .Values.storage.adapters.claim.create .Values.storage.adapters.wait) }}
- storage.adapters is set, and config.model.adapter is in a bucket: remove volume, claim and wait
{{- end }}
{{- if $kafka.instance_id }}
- config.kafka.instance_id would be the same in every pod, and workers with the same instance_id fence each other: leave it out; the chart sets the pod's name
{{- end }}
{{- include "filing-clerk.topicProblems" . }}
{{- include "filing-clerk.propertyProblems" . }}
{{- include "filing-clerk.tokenProblems" . }}
{{- if and (hasKey $http "port") (not $http.port) }}
- config.http.port is 0 (any free port): set a fixed port, which the probes need
{{- end }}
{{- if has $http.host (list "127.0.0.1" "localhost" "::1") }}
- config.http.host is {{ $http.host }}: the kubelet cannot reach it: use 0.0.0.0, or "::" in an IPv6-only cluster
{{- end }}
{{- range include "filing-clerk.secretsIn" (list "config" $config) | trim | splitList "\n" }}
{{- if . }}
- {{ . }} is a secret, and config becomes a ConfigMap that many may read: put it into a Secret and refer to that in auth or secretEnv (CLERK_KAFKA__SASL_PASSWORD; CLERK_KAFKA__CLIENT takes a JSON object)
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.env }}
{{- if hasPrefix "CLERK_" $name }}
- env.{{ $name }} is a setting: move it to config, or to secretEnv if it is a secret
{{- end }}
{{- if hasKey $.Values.secretEnv $name }}
- env.{{ $name }} is also in secretEnv: remove one of them
{{- end }}
{{- end }}
{{- range $name := list "podSpec" "workerPodSpec" }}
{{- range $key, $_ := index $.Values $name }}
{{- if has $key (list "containers" "initContainers" "volumes" "securityContext" "imagePullSecrets" "serviceAccountName" "automountServiceAccountToken" "enableServiceLinks" "restartPolicy" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "terminationGracePeriodSeconds") }}
- {{ $name }}.{{ $key }} is set by the chart: use the value for it (podSecurityContext, extraVolumes, nodeSelector, ...)
{{- else if and (eq $name "workerPodSpec") (hasKey ($.Values.podSpec | default dict) $key) }}
- workerPodSpec.{{ $key }} is also in podSpec: remove one of them
{{- end }}
{{- end }}
{{- end }}
{{- if hasPrefix "amd.com/" .Values.gpu.resource }}
- gpu.resource is {{ .Values.gpu.resource }}: there is no image for AMD's GPUs (ROCm); use NVIDIA's, or gpu.count 0 with an encoder or on the CPU
{{- end }}
{{- range list "CLERK_KAFKA__INSTANCE_ID" "CLERK_HTTP__HOST" }}
{{- if hasKey $.Values.secretEnv . }}
- secretEnv.{{ . }} is set by the chart
{{- end }}
{{- end }}
{{- if hasKey .Values.secretEnv "CLERK_KAFKA__TRANSACTIONAL_ID" }}
- secretEnv.CLERK_KAFKA__TRANSACTIONAL_ID would be the same in every pod, and workers with the same id fence each other: leave it out
{{- end }}

{{- $protocol := $kafka.security_protocol | default "plaintext" }}
{{- $sasl := hasPrefix "sasl" $protocol }}
{{- if and $auth.sasl.secret (not $sasl) }}
- auth.sasl.secret is set, but config.kafka.security_protocol is {{ $protocol }}: set it to sasl_ssl or sasl_plaintext
{{- end }}
{{- if and $auth.sasl.secret (or $kafka.sasl_username (hasKey .Values.secretEnv "CLERK_KAFKA__SASL_PASSWORD")) }}
- auth.sasl.secret contains user name and password: leave config.kafka.sasl_username and secretEnv.CLERK_KAFKA__SASL_PASSWORD out
{{- end }}
{{- if and $sasl (not $kafka.sasl_mechanism) }}
- config.kafka.security_protocol is {{ $protocol }}: set config.kafka.sasl_mechanism
{{- end }}
{{- if and $sasl (not $auth.sasl.secret) (not (hasKey .Values.secretEnv "CLERK_KAFKA__SASL_PASSWORD")) (ne ($kafka.sasl_mechanism | default "") "OAUTHBEARER") }}
- config.kafka.security_protocol is {{ $protocol }}: name a Secret with user name and password in auth.sasl.secret
{{- end }}
{{- if and $auth.tls.caSecret $auth.tls.caConfigMap }}
- auth.tls.caSecret and auth.tls.caConfigMap are both set: remove one of them
{{- end }}
{{- if and (or $auth.tls.caSecret $auth.tls.caConfigMap $auth.tls.clientSecret) (not (hasSuffix "ssl" $protocol)) }}
- auth.tls is set, but config.kafka.security_protocol is {{ $protocol }}: set it to ssl or sasl_ssl
{{- end }}
{{- if and (or $auth.tls.caSecret $auth.tls.caConfigMap) $kafka.ssl_ca_location }}
- config.kafka.ssl_ca_location is set by the chart from auth.tls: leave it out
{{- end }}
{{- if and $auth.tls.clientSecret (or $kafka.ssl_certificate_location $kafka.ssl_key_location) }}
- config.kafka.ssl_certificate_location and .ssl_key_location are set by the chart from auth.tls: leave them out
{{- end }}

{{- range $name := list "models" "adapters" }}
{{- $store := index $.Values.storage $name }}
{{- if and $store.volume $store.claim.create }}
- storage.{{ $name }}: volume and claim.create are both set: remove one of them
{{- end }}
{{- if and $store.mountPath (not $store.volume) (not $store.claim.create) (not (and $bucket (eq $name "adapters"))) }}
- storage.{{ $name }}.volume is empty: set volume ({persistentVolumeClaim: {claimName: ...}}), or claim.create: true, or mountPath: "" if the image contains the files
{{- end }}
{{- end }}
{{- range $name := list "models" "adapters" }}
{{- if and (hasKey (index $.Values.storage $name).volume "image") (semverCompare "<1.33.0-0" $.Capabilities.KubeVersion.Version) }}
- storage.{{ $name }}.volume.image needs Kubernetes 1.33 or newer (up to 1.34 with the feature gate ImageVolume), but this is {{ $.Capabilities.KubeVersion.Version }}
{{- end }}
{{- end }}
{{- if .Values.download.enabled }}
{{- if and .Values.download.files (or .Values.download.command .Values.download.args) }}
- download: files and command (or args) are both set: remove one of them
{{- else if and (not .Values.download.files) (not .Values.download.image) }}
- download.image is empty: name an image whose command fills the volumes, or list files in download.files
{{- end }}
{{- range $name := list "models" "adapters" }}
{{- if hasKey (index $.Values.storage $name).volume "image" }}
- download: storage.{{ $name }}.volume is an image, which is read-only
{{- end }}
{{- end }}
{{- end }}

{{- $partitions := $kafka.topic_partitions | default 0 | int }}
{{- if and $partitions (include "filing-clerk.onlyInput" .) }}
{{- if and (eq $scaling.kind "none") (gt (int .Values.replicaCount) $partitions) }}
- replicaCount is {{ int .Values.replicaCount }} and the input topic has {{ $partitions }} partitions (config.kafka.topic_partitions): {{ sub (int .Values.replicaCount) $partitions }} workers would do nothing
{{- end }}
{{- if and (ne $scaling.kind "none") (gt (int $scaling.maxReplicas) $partitions) }}
- autoscaling.maxReplicas is {{ int $scaling.maxReplicas }} and the input topic has {{ $partitions }} partitions (config.kafka.topic_partitions): more workers would do nothing
{{- end }}
{{- end }}
{{- if ne $scaling.kind "none" }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
- autoscaling.minReplicas is {{ int $scaling.minReplicas }}, above .maxReplicas {{ int $scaling.maxReplicas }}
{{- end }}
{{- end }}
{{- if and (eq $scaling.kind "keda") $kafka.retry_topic (not (int $scaling.minReplicas)) }}
- autoscaling.minReplicas is 0 and config.kafka.retry_topic is set: messages in the retry topic start no worker and would wait until others arrive: set it to 1
{{- end }}
{{- if eq $scaling.kind "hpa" }}
{{- if not $scaling.hpa.metrics }}
- autoscaling.hpa.metrics is empty: set the metrics by which it scales
{{- end }}
{{- if not (int $scaling.minReplicas) }}
- autoscaling.minReplicas is 0: only kind keda can scale to 0
{{- end }}
{{- end }}
{{- if and (eq $scaling.kind "keda") $sasl (not $auth.sasl.secret) (not $scaling.keda.authentication) }}
- autoscaling: KEDA must also log in to Kafka: set auth.sasl.secret, or name a TriggerAuthentication of yours in autoscaling.keda.authentication
{{- end }}
{{- range $name, $_ := $scaling.keda.metadata }}
{{- if has $name (list "bootstrapServers" "consumerGroup" "topic" "lagThreshold" "activationLagThreshold" "offsetResetPolicy" "allowIdleConsumers" "sasl" "tls") }}
- autoscaling.keda.metadata.{{ $name }} is set by the chart
{{- end }}
{{- end }}

{{- $given := .Values.terminationGracePeriodSeconds }}
{{- $drain := include "filing-clerk.drainSeconds" . | int }}
{{- if not (kindIs "invalid" $given) }}
{{- if lt (int $given) $drain }}
- terminationGracePeriodSeconds is {{ int $given }}, but a worker may drain for {{ $drain }} s (config.loop.drain_s + 3 x config.kafka.publish_timeout_s) and would be killed before it is done: raise it, lower those, or leave it null
{{- end }}
{{- end }}
{{- if and (has (.Values.strategy.maxSurge | toString) (list "0" "0%")) (has (.Values.strategy.maxUnavailable | toString) (list "0" "0%")) }}
- strategy.maxSurge and .maxUnavailable are both 0, so no pod could ever be replaced: set one above 0
{{- end }}
{{- $engine := $model.engine_args | default dict }}
{{- $wanted := mul ($engine.tensor_parallel_size | default 1 | int) ($engine.pipeline_parallel_size | default 1 | int) }}
{{- if and (gt $wanted 1) (ne $wanted (.Values.gpu.count | int64)) }}
- gpu.count is {{ int .Values.gpu.count }}, but config.model.engine_args spreads the model over {{ $wanted }} GPUs: set gpu.count to {{ $wanted }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not (include "filing-clerk.kafkaPorts" . | fromJsonArray)) $kafka.bootstrap_servers }}
- config.kafka.bootstrap_servers has no port: use host:port, or set networkPolicy.kafkaPorts
{{- end }}

{{- $propose := .Values.trainer.propose }}
{{- $who := .Values.trainer.enabled | ternary "trainer" "trainer.propose" }}
{{- if or .Values.trainer.enabled $propose.enabled }}
{{- if not .Values.trainer.image.repository }}
- trainer.image.repository is empty: name the trainer's image
{{- end }}
{{- if not .Values.trainer.recipe }}
- trainer.recipe is empty: --set-file trainer.recipe=config/trainer.toml
{{- end }}
{{- if not .Values.trainer.data }}
- trainer.data is empty: name the volume with the prepared dataset
{{- end }}
{{- if hasKey .Values.storage.adapters.volume "image" }}
- {{ $who }}: storage.adapters.volume is an image, which is read-only: use a writable volume to publish
{{- end }}
{{- if not (or .Values.storage.adapters.mountPath $bucket) }}
- {{ $who }}: storage.adapters.mountPath is empty: set it, the adapter is published there
{{- end }}
{{- end }}
{{- if $propose.enabled }}
{{- if not $propose.decisions }}
- trainer.propose.decisions is empty: name the volume with the output of clerk-desk export
{{- end }}
{{- if not $propose.proposals }}
- trainer.propose.proposals is empty: name a persistent volume, because the next proposal uses this one's dataset
{{- else if or (hasKey $propose.proposals "emptyDir") (get ($propose.proposals.persistentVolumeClaim | default dict) "readOnly") }}
- trainer.propose.proposals is not a persistent, writable volume: name one
{{- end }}
{{- end }}
{{- if .Values.rollback.enabled }}
{{- if not (or .Values.storage.adapters.mountPath $bucket) }}
- rollback: storage.adapters.mountPath is empty: set the path of the store
{{- else if or (hasKey .Values.storage.adapters.volume "image") (get (.Values.storage.adapters.volume.persistentVolumeClaim | default dict) "readOnly") }}
- rollback: storage.adapters.volume is read-only: use a writable volume
{{- end }}
{{- end }}
{{- if .Values.desk.enabled }}
{{- include "filing-clerk.deskProblems" . }}
{{- end }}
{{- range $key, $_ := .Values.commonLabels }}
{{- if has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") }}
- commonLabels.{{ $key }} is set by the chart
{{- end }}
{{- end }}
{{- if .Values.metrics.rules.enabled }}
{{- if not (.Files.Get "files/rules.yaml") }}
- metrics.rules: the chart has no files/rules.yaml
{{- end }}
{{- if not (include "filing-clerk.jobs" . | fromJsonArray) }}
- metrics.rules: with metrics.monitor none, the release's job in Prometheus is unknown, and its alerts would also fire for other releases: set metrics.monitor to pod or service, or name the job in metrics.rules.jobs
{{- end }}
{{- $known := list }}
{{- range (.Files.Get "files/rules.yaml" | fromYaml).groups }}{{ range .rules }}{{ with .alert }}{{ $known = append $known . }}{{ end }}{{ end }}{{ end }}
{{- range $name, $_ := .Values.metrics.rules.alerts }}
{{- if not (has $name $known) }}
- metrics.rules.alerts.{{ $name }}: there is no such alert. Use one of {{ join ", " $known }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.metrics.dashboard.enabled }}
{{- if not (.Files.Get "files/dashboard.json") }}
- metrics.dashboard: the chart has no files/dashboard.json
{{- end }}
{{- end }}
{{- end -}}
