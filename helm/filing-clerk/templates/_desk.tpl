{{/* The desk's settings and variables, and the problems in them. */}}

{{/* desk.config with defaults from the chart (the workers' Kafka and records, certificates, names), as JSON. */}}
{{- define "filing-clerk.deskConfig" -}}
{{- $config := deepCopy .Values.desk.config -}}
{{- $kafka := $config.kafka | default dict -}}
{{- $workers := include "filing-clerk.config" . | fromJson -}}
{{- range list "bootstrap_servers" "output_topic" "review_topic" "security_protocol" "sasl_mechanism" "sasl_token_callback" "ssl_ca_location" "ssl_certificate_location" "ssl_key_location" "client" "registry" -}}
{{- if and (hasKey $workers.kafka .) (not (hasKey $kafka .)) -}}
{{- $_ := set $kafka . (get $workers.kafka .) -}}
{{- end -}}
{{- end -}}
{{- $corrections := printf "%s.corrections" $workers.kafka.output_topic -}}
{{- $_ := set $kafka "corrections_topic" ($kafka.corrections_topic | default $corrections) -}}
{{- $_ := set $config "kafka" $kafka -}}
{{- $records := $config.records | default dict -}}
{{- range list "format" "text_fields" "id_field" -}}
{{- if and (hasKey ($workers.records | default dict) .) (not (hasKey $records .)) -}}
{{- $_ := set $records . (get $workers.records .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "records" $records -}}
{{- $web := $config.web | default dict -}}
{{- if not $web.hostnames -}}
{{- $names := ternary (list .Values.desk.ingress.host) list .Values.desk.ingress.enabled -}}
{{- with concat $names (ternary .Values.desk.httpRoute.hostnames list .Values.desk.httpRoute.enabled) -}}
{{- $_ := set $web "hostnames" (uniq .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "web" $web -}}
{{- toJson $config -}}
{{- end -}}

{{- define "filing-clerk.deskToml" -}}
{{ include "filing-clerk.tomlOf" (list . "desk.config" (include "filing-clerk.deskConfig" . | fromJson)) }}
{{- end -}}

{{- define "filing-clerk.deskPort" -}}
{{ (.Values.desk.config.web | default dict).port | default 8090 | int }}
{{- end -}}

{{- define "filing-clerk.deskMetricsPort" -}}
{{ (.Values.desk.config.web | default dict).metrics_port | default 8091 | int }}
{{- end -}}

{{/* The desk's login to Kafka, in the form of auth, as JSON: the workers' certificates with the desk's own user. */}}
{{- define "filing-clerk.deskAuth" -}}
{{- $sasl := ternary .Values.desk.sasl .Values.auth.sasl (not (empty .Values.desk.sasl.secret)) -}}
{{- toJson (dict "tls" .Values.auth.tls "sasl" (set (deepCopy $sasl) "passwordAsFile" false)) -}}
{{- end -}}

{{/* Environment variables. They override desk.toml and the host, taxonomy and SQLite path that the image sets. */}}
{{- define "filing-clerk.deskEnv" -}}
{{- $desk := .Values.desk -}}
{{- $auth := include "filing-clerk.deskAuth" . | fromJson -}}
{{- $secrets := dict -}}
{{- if $desk.database.secret -}}
{{- $_ := set $secrets "CLERK_DESK_DATABASE__URL" (dict "name" $desk.database.secret "key" $desk.database.key) -}}
{{- end -}}
{{- if $auth.sasl.secret -}}
{{- $_ := set $secrets "CLERK_DESK_KAFKA__SASL_USERNAME" (dict "name" $auth.sasl.secret "key" $auth.sasl.usernameKey) -}}
{{- $_ := set $secrets "CLERK_DESK_KAFKA__SASL_PASSWORD" (dict "name" $auth.sasl.secret "key" $auth.sasl.passwordKey) -}}
{{- end -}}
{{- if and $auth.tls.clientSecret $auth.tls.privateKeyPasswordKey -}}
{{- $_ := set $secrets "CLERK_DESK_KAFKA__SSL_KEY_PASSWORD" (dict "name" $auth.tls.clientSecret "key" $auth.tls.privateKeyPasswordKey) -}}
{{- end -}}
{{- range $name := list "CLIENT" "REGISTRY" -}}
{{- $given := get $.Values.secretEnv (printf "CLERK_KAFKA__%s" $name) -}}
{{- if and $given (not (hasKey $desk.secretEnv (printf "CLERK_DESK_KAFKA__%s" $name))) -}}
{{- $_ := set $secrets (printf "CLERK_DESK_KAFKA__%s" $name) $given -}}
{{- end -}}
{{- end -}}
{{- if $desk.oidc.secret -}}
{{- $_ := set $secrets "CLERK_DESK_OIDC__CLIENT_SECRET" (dict "name" $desk.oidc.secret "key" $desk.oidc.key) -}}
{{- end -}}
- name: CLERK_DESK_WEB__HOST
  value: {{ ($desk.config.web | default dict).host | default "0.0.0.0" | quote }}
- name: CLERK_DESK_WEB__METRICS_PORT
  value: {{ include "filing-clerk.deskMetricsPort" . | quote }}
- name: CLERK_DESK_PROJECT__TAXONOMY
  value: /etc/filing-clerk/taxonomy.toml
{{- if not $desk.database.secret }}
- name: CLERK_DESK_DATABASE__URL
  value: sqlite:////var/lib/filing-clerk/desk.db
{{- end }}
{{- include "filing-clerk.secretEnv" (merge $secrets $desk.secretEnv) }}
{{- $plain := deepCopy .Values.env -}}
{{- range $name, $_ := $desk.secretEnv -}}{{- $_ := unset $plain $name -}}{{- end -}}
{{- include "filing-clerk.plainEnv" $plain }}
{{- end -}}

{{/* Fields that both containers of the desk's pod share: (list . kafka), where kafka has .Values.auth. */}}
{{- define "filing-clerk.deskContainer" -}}
{{- $root := index . 0 -}}
{{- $desk := $root.Values.desk -}}
image: {{ include "filing-clerk.image" (list $root $desk.image) | quote }}
imagePullPolicy: {{ $desk.image.pullPolicy }}
env:
  {{- include "filing-clerk.deskEnv" $root | nindent 2 }}
{{- with $root.Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $desk.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  {{- include "filing-clerk.kafkaMounts" (index . 1) | nindent 2 }}
  {{- if not $desk.database.secret }}
  - name: database
    mountPath: /var/lib/filing-clerk
  {{- end }}
  {{- if $desk.exports }}
  - name: exports
    mountPath: /exports
  {{- end }}
  - name: tmp
    mountPath: /tmp
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "filing-clerk.deskProblems" -}}
{{- $desk := .Values.desk -}}
{{- $config := $desk.config -}}
{{- $signIn := $config.sign_in | default dict -}}
{{- $oidc := $config.oidc | default dict -}}
{{- $method := $signIn.method | default "none" -}}
{{- if not $desk.image.repository }}
- desk.image.repository is empty: name the desk's image (registry.example/clerk/desk)
{{- end }}
{{- if not $desk.taxonomy }}
- desk.taxonomy is empty: --set-file desk.taxonomy=config/taxonomy.toml, the one of the adapter in service
{{- end }}
{{- if and (gt ($desk.replicaCount | int) 1) (not $desk.database.secret) }}
- desk.replicaCount is {{ int $desk.replicaCount }} but SQLite allows only one: name a Secret with PostgreSQL's URL in desk.database.secret, or set desk.replicaCount to 1
{{- end }}
{{- if and $desk.database.secret $desk.database.volume }}
- desk.database: secret (PostgreSQL) and volume (SQLite) are both set: remove one of them
{{- end }}
{{- if eq $method "none" }}
- desk.config.sign_in.method is none, which is only for a desk on your own machine: set it to oidc, proxy or local
{{- end }}
{{- if eq $method "oidc" }}
{{- range list "issuer" "client_id" "public_url" }}
{{- if not (get $oidc .) }}
- desk.config.oidc.{{ . }} is empty: set it, because desk.config.sign_in.method is oidc
{{- end }}
{{- end }}
{{- else if $desk.oidc.secret }}
- desk.oidc.secret is set, but desk.config.sign_in.method is {{ $method }}: remove it, or set the method to oidc
{{- end }}
{{- if and (eq $method "proxy") (not $signIn.proxy_addresses) }}
- desk.config.sign_in.proxy_addresses is empty: list the proxy's addresses, otherwise anybody could send its header
{{- end }}
{{- if has ($config.web | default dict).host (list "127.0.0.1" "localhost" "::1") }}
- desk.config.web.host is {{ $config.web.host }}: neither the kubelet nor the Ingress can reach it: leave it out
{{- end }}
{{- if and $desk.ingress.enabled (not $desk.ingress.host) }}
- desk.ingress.host is empty: set the desk's host name (desk.example.com)
{{- end }}
{{- if $desk.httpRoute.enabled }}
{{- range list "parentRefs" "hostnames" }}
{{- if not (get $desk.httpRoute .) }}
- desk.httpRoute.{{ . }} is empty: set {{ eq . "hostnames" | ternary "the desk's host names ([desk.example.com])" "the Gateway ([{name: ..., namespace: ...}])" }}
{{- end }}
{{- end }}
{{- end }}
{{- range list (list "database" "url" "desk.database.secret") (list "project" "taxonomy" "desk.taxonomy") }}
{{- if hasKey (get $config (index . 0) | default dict) (index . 1) }}
- desk.config.{{ index . 0 }}.{{ index . 1 }} is set by the chart: use {{ index . 2 }}
{{- end }}
{{- end }}
{{- range include "filing-clerk.secretsIn" (list "desk.config" $config) | trim | splitList "\n" }}
{{- if . }}
- {{ . }} is a secret, and desk.config becomes a ConfigMap that many may read: put it into a Secret and refer to that in desk.oidc, desk.sasl or desk.secretEnv
{{- end }}
{{- end }}
{{- range $name, $_ := $desk.secretEnv }}
{{- if has $name (list "CLERK_DESK_WEB__HOST" "CLERK_DESK_PROJECT__TAXONOMY" "CLERK_DESK_DATABASE__URL") }}
- desk.secretEnv.{{ $name }} is set by the chart
{{- end }}
{{- end }}
{{- end -}}
