{{/* The worker's effective settings, and settings as TOML. */}}

{{/* config with defaults from the chart (paths of mounted certificates, names that no other release has), as JSON.
     A topic that is null or left out is named after the output topic, which, like the group, is named after the release. */}}
{{- define "filing-clerk.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $kafka := $config.kafka | default dict -}}
{{- $own := printf "%s.%s" (include "filing-clerk.namespace" .) (include "filing-clerk.fullname" .) -}}
{{- $_ := set $kafka "group_id" ($kafka.group_id | default $own) -}}
{{- $_ := set $kafka "input_topics" ($kafka.input_topics | default (list "support.messages")) -}}
{{- $output := $kafka.output_topic | default (printf "%s.labels" $own) -}}
{{- $_ := set $kafka "output_topic" $output -}}
{{- $_ := set $kafka "dead_letter_topic" ($kafka.dead_letter_topic | default (printf "%s.dead" $output)) -}}
{{- if not (kindIs "string" $kafka.review_topic) -}}
{{- $_ := set $kafka "review_topic" (printf "%s.review" $output) -}}
{{- end -}}
{{- with $config.adapters -}}
{{- if and .shadow (not .shadow_topic) -}}
{{- $_ := set . "shadow_topic" (printf "%s.shadow" $output) -}}
{{- end -}}
{{- end -}}
{{- $tls := .Values.auth.tls -}}
{{- if or $tls.caSecret $tls.caConfigMap -}}
{{- $_ := set $kafka "ssl_ca_location" (printf "/etc/kafka/ca/%s" $tls.caKey) -}}
{{- end -}}
{{- if $tls.clientSecret -}}
{{- $_ := set $kafka "ssl_certificate_location" (printf "/etc/kafka/client/%s" $tls.certificateKey) -}}
{{- $_ := set $kafka "ssl_key_location" (printf "/etc/kafka/client/%s" $tls.privateKeyKey) -}}
{{- end -}}
{{- if and .Values.auth.sasl.secret .Values.auth.sasl.passwordAsFile -}}
{{- $_ := set $kafka "sasl_password_file" "/etc/kafka/login/password" -}}
{{- end -}}
{{- if not ($config.model | default dict).base -}}
{{- $_ := unset ($config.model | default dict) "base" -}}
{{- end -}}
{{- $_ := set $config "kafka" $kafka -}}
{{- toJson $config -}}
{{- end -}}

{{/* worker.toml. */}}
{{- define "filing-clerk.toml" -}}
{{ include "filing-clerk.tomlOf" (list . "config" (include "filing-clerk.config" . | fromJson)) }}
{{- end -}}

{{/* Settings as TOML: (list . "name of the value" settings). Helm's own toToml writes 8080 as 8080.0, which neither a port
     nor librdkafka accepts. */}}
{{- define "filing-clerk.tomlOf" -}}
# Made by Helm from the value "{{ index . 1 }}" of the release {{ (index . 0).Release.Name }}.
{{- range $section, $keys := index . 2 }}
{{- if kindIs "map" $keys }}

[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ toJson $key }} = {{ include "filing-clerk.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

{{/* A JSON string is a valid TOML string, except that TOML requires DEL to be escaped. */}}
{{- define "filing-clerk.tomlValue" -}}
{{- $parts := list -}}
{{- if kindIs "map" . -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $parts = append $parts (printf "%s = %s" (toJson $key) (include "filing-clerk.tomlValue" $value)) -}}
{{- end -}}
{{- end -}}
{ {{ join ", " $parts }} }
{{- else if kindIs "slice" . -}}
{{- range . -}}
{{- $parts = append $parts (include "filing-clerk.tomlValue" .) -}}
{{- end -}}
[{{ join ", " $parts }}]
{{- else if kindIs "string" . -}}
{{- toJson . | replace "\x7f" "\\u007f" -}}
{{- else -}}
{{- include "filing-clerk.number" . -}}
{{- end -}}
{{- end -}}

{{/* A number without the ".0" and the exponent that Helm gives it; anything else as JSON. */}}
{{- define "filing-clerk.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) (lt . 9e15) (gt . -9e15) -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* Longest time in seconds that a worker needs to stop after SIGTERM, rounded up: it drains, then the last publish may
     resolve an unanswered commit, start a producer and publish, each within publish_timeout_s. */}}
{{- define "filing-clerk.drainSeconds" -}}
{{- $loop := .Values.config.loop | default dict -}}
{{- $kafka := .Values.config.kafka | default dict -}}
{{- $drain := hasKey $loop "drain_s" | ternary $loop.drain_s 30 | default 30 | float64 -}}
{{- $publish := hasKey $kafka "publish_timeout_s" | ternary $kafka.publish_timeout_s 10 | default 10 | float64 -}}
{{- addf $drain (mulf 3 $publish) | ceil | int -}}
{{- end -}}

{{- define "filing-clerk.graceSeconds" -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- add 30 (include "filing-clerk.drainSeconds" . | int) -}}
{{- else -}}
{{- int $given -}}
{{- end -}}
{{- end -}}

{{/* Ports in bootstrap_servers, as a JSON list. */}}
{{- define "filing-clerk.kafkaPorts" -}}
{{- $ports := list -}}
{{- if .Values.networkPolicy.kafkaPorts -}}
{{- range .Values.networkPolicy.kafkaPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- else -}}
{{- range (.Values.config.kafka | default dict).bootstrap_servers | default "" | toString | splitList "," -}}
{{- $port := regexFind "[0-9]+$" (trim .) -}}
{{- if regexMatch ":[0-9]+$" (trim .) -}}{{- $ports = append $ports (int $port) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{/* The port that traces are sent to, if tracing is enabled: from the collector's URL, or the protocol's default. */}}
{{- define "filing-clerk.tracingPort" -}}
{{- if (.Values.config.tracing | default dict).enabled -}}
{{- $env := .Values.env -}}
{{- $url := $env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT | default $env.OTEL_EXPORTER_OTLP_ENDPOINT | default "" -}}
{{- $protocol := $env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL | default $env.OTEL_EXPORTER_OTLP_PROTOCOL | default "http/protobuf" -}}
{{- $host := regexReplaceAll "^[a-z]+://" $url "" | splitList "/" | first -}}
{{- if regexMatch ":[0-9]+$" $host -}}
{{- regexFind "[0-9]+$" $host -}}
{{- else if hasPrefix "https://" $url -}}
443
{{- else if and (hasPrefix "http://" $url) (ne $protocol "grpc") -}}
80
{{- else -}}
{{- ternary "4317" "4318" (eq $protocol "grpc") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "filing-clerk.urlPort" -}}
{{- $host := regexReplaceAll "^[a-z]+://" . "" | splitList "/" | first -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $host) | default (ternary "80" "443" (hasPrefix "http://" .)) -}}
{{- end -}}

{{/* The ports of the token endpoints that librdkafka asks by itself (sasl.oauthbearer.method=oidc), as a JSON list:
     (list settings-of-kafka ...). */}}
{{- define "filing-clerk.tokenPorts" -}}
{{- $ports := list -}}
{{- range . -}}
{{- range list .client .consumer .producer -}}
{{- with get (. | default dict) "sasl.oauthbearer.token.endpoint.url" -}}
{{- $ports = append $ports (include "filing-clerk.urlPort" . | int) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson ($ports | uniq) -}}
{{- end -}}

{{/* Egress rules of pods that connect to Kafka: DNS, the brokers, a token endpoint. */}}
{{- define "filing-clerk.dnsEgress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .Values.networkPolicy.dnsPeers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "filing-clerk.kafkaEgress" -}}
{{ include "filing-clerk.dnsEgress" . }}
{{- with include "filing-clerk.kafkaPorts" . | fromJsonArray }}
{{ include "filing-clerk.egress" (list . $.Values.networkPolicy.kafkaPeers) }}
{{- end }}
{{- $kafka := list (include "filing-clerk.config" . | fromJson).kafka }}
{{- if .Values.desk.enabled }}
{{- $kafka = append $kafka (include "filing-clerk.deskConfig" . | fromJson).kafka }}
{{- end }}
{{- with include "filing-clerk.tokenPorts" $kafka | fromJsonArray }}
{{ include "filing-clerk.egress" (list . $.Values.networkPolicy.tokenPeers) }}
{{- end }}
{{- $registries := list }}
{{- range $kafka }}
{{- range (.registry | default dict).url | default "" | splitList "," | compact }}
{{- $registries = append $registries (include "filing-clerk.urlPort" (trim .)) | uniq }}
{{- end }}
{{- end }}
{{- with $registries }}
{{ include "filing-clerk.egress" (list . $.Values.networkPolicy.registryPeers) }}
{{- end }}
{{- end -}}

{{/* One egress rule: (list ports peers). No peers: any address. */}}
{{- define "filing-clerk.egress" -}}
- ports:
    {{- range index . 0 }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
  {{- with index . 1 }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
