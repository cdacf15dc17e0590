{{/* Problems in the settings for Kafka that a worker would refuse when it starts, as far as values show them. */}}

{{/* Whether a topic is an input: (list inputs topic). Inputs that begin with ^ are patterns. "true" or empty. */}}
{{- define "filing-clerk.isInput" -}}
{{- $topic := index . 1 -}}
{{- range index . 0 -}}
{{- if or (eq . $topic) (and (hasPrefix "^" .) (regexMatch . $topic)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* A librdkafka property as one client gets it: (list settings-of-kafka "consumer" name default). */}}
{{- define "filing-clerk.property" -}}
{{- $kafka := index . 0 -}}
{{- $name := index . 2 -}}
{{- $own := get $kafka (index . 1) | default dict -}}
{{- $both := $kafka.client | default dict -}}
{{- if hasKey $own $name -}}{{- get $own $name -}}
{{- else if hasKey $both $name -}}{{- get $both $name -}}
{{- else -}}{{- index . 3 -}}
{{- end -}}
{{- end -}}

{{- define "filing-clerk.topicProblems" -}}
{{- $config := include "filing-clerk.config" . | fromJson -}}
{{- $kafka := $config.kafka -}}
{{- $inputs := $kafka.input_topics -}}
{{- $results := list (list "config.kafka.output_topic" $kafka.output_topic) (list "config.kafka.review_topic" $kafka.review_topic) (list "config.kafka.dead_letter_topic" $kafka.dead_letter_topic) -}}
{{- $apart := list (list "config.kafka.retry_topic" ($kafka.retry_topic | default "")) -}}
{{- if ($config.adapters | default dict).shadow -}}
{{- $apart = append $apart (list "config.adapters.shadow_topic" $config.adapters.shadow_topic) -}}
{{- end -}}
{{- if .Values.desk.enabled -}}
{{- $apart = append $apart (list "desk.config.kafka.corrections_topic" (include "filing-clerk.deskConfig" . | fromJson).kafka.corrections_topic) -}}
{{- end -}}
{{- range $inputs }}
{{- if not (or (hasPrefix "^" .) (regexMatch "^[A-Za-z0-9._-]{1,249}$" .)) }}
- config.kafka.input_topics: {{ . | quote }} is not the name of a topic: use letters, digits, ".", "_" and "-", at most 249; a pattern begins with ^
{{- end }}
{{- end }}
{{- range $kafka.urgent_topics }}
{{- if not (has . $inputs) }}
- config.kafka.urgent_topics: {{ . | quote }} is not in config.kafka.input_topics: write it there too, in the same way
{{- end }}
{{- end }}
{{- range concat $results $apart }}
{{- $setting := first . }}
{{- $topic := last . }}
{{- if $topic }}
{{- if not (regexMatch "^[A-Za-z0-9._-]{1,249}$" $topic) }}
- {{ $setting }}: {{ $topic | quote }} is not the name of a topic: use letters, digits, ".", "_" and "-", at most 249
{{- end }}
{{- if include "filing-clerk.isInput" (list $inputs $topic) }}
- {{ $setting }}: {{ $topic }} is also an input (config.kafka.input_topics), and workers would read their own results: use another topic, or narrow the pattern
{{- end }}
{{- end }}
{{- end }}
{{- range list (index $results 0) (index $results 1) }}
{{- if eq (last .) $kafka.dead_letter_topic }}
- config.kafka.dead_letter_topic and {{ first . }} are both {{ last . }}, which is for labels: use another topic for dead letters
{{- end }}
{{- end }}
{{- range $index, $one := $apart }}
{{- range concat $results (rest (slice $apart $index)) }}
{{- if and (last $one) (eq (last $one) (last .)) }}
- {{ first $one }} and {{ first . }} are both {{ last $one }}: each needs its own topic
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Properties that a user cannot set: (list "config.kafka" settings-of-kafka names). */}}
{{- define "filing-clerk.reservedProperties" -}}
{{- $path := index . 0 -}}
{{- $kafka := index . 1 -}}
{{- $names := index . 2 -}}
{{- range $place := list "client" "consumer" "producer" }}
{{- range $name, $_ := get $kafka $place | default dict }}
{{- if has $name $names }}
- {{ $path }}.{{ $place }}.{{ $name }} cannot be set: the program sets it, or another setting does
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "filing-clerk.propertyProblems" -}}
{{- $config := include "filing-clerk.config" . | fromJson -}}
{{- $kafka := $config.kafka -}}
{{- $once := eq ($kafka.delivery | default "exactly_once") "exactly_once" -}}
{{- include "filing-clerk.reservedProperties" (list "config.kafka" $kafka (list "enable.auto.commit" "auto.commit.enable" "enable.auto.offset.store" "offset.store.method" "enable.partition.eof" "transactional.id" "enable.idempotence" "bootstrap.servers" "metadata.broker.list" "group.id" "on_delivery" "error_cb" "logger" "stats_cb")) }}
{{- if .Values.desk.enabled }}
{{- include "filing-clerk.reservedProperties" (list "desk.config.kafka" (.Values.desk.config.kafka | default dict) (list "group.id" "transactional.id" "enable.auto.commit" "enable.auto.offset.store" "isolation.level" "enable.idempotence" "acks")) }}
{{- end }}
{{- range $place := list "client" "consumer" "producer" }}
{{- range $name, $value := get $kafka $place | default dict }}
{{- $at := printf "config.kafka.%s.%s" $place $name }}
{{- $text := $value | toString | lower }}
{{- if eq $name "group.instance.id" }}
- {{ $at }} would be the same in every pod, and workers with the same id push each other out of the group: leave it out
{{- end }}
{{- if and (eq $name "auto.offset.reset") (has $text (list "latest" "largest" "end")) }}
- {{ $at }} is {{ $text }}, and messages in a new partition would be skipped: leave it at earliest
{{- end }}
{{- if and (eq $name "auto.offset.reset") (eq $text "error") $kafka.retry_topic }}
- {{ $at }} is error and config.kafka.retry_topic is set: the retry topic's first message would stop the worker: leave it at earliest
{{- end }}
{{- if and (eq $name "isolation.level") $once (ne $text "read_committed") }}
- {{ $at }} is {{ $text }}: exactly_once needs read_committed
{{- end }}
{{- if and (has $name (list "acks" "request.required.acks")) (not (has $text (list "all" "-1"))) }}
- {{ $at }} is {{ $text }}: results could be lost with a broker: set it to all
{{- end }}
{{- if and (has $name (list "max.in.flight" "max.in.flight.requests.per.connection")) (gt (float64 $value) 5.0) }}
- {{ $at }} is {{ $value }}: with more than 5, a retry may duplicate results: set it to 5 or less
{{- end }}
{{- if and (has $name (list "retries" "message.send.max.retries")) (lt (float64 $value) 1.0) }}
- {{ $at }} is {{ $value }}: set it to 1 or more
{{- end }}
{{- end }}
{{- end }}

{{- $publish := $kafka.publish_timeout_s | default 10 | float64 }}
{{- $transaction := divf (include "filing-clerk.property" (list $kafka "producer" "transaction.timeout.ms" 15000) | float64) 1000 }}
{{- if and $once (gt $publish $transaction) }}
- config.kafka.publish_timeout_s is {{ $publish }} and a broker ends a transaction after {{ $transaction }} s (config.kafka.producer, transaction.timeout.ms): set publish_timeout_s below that
{{- end }}
{{- /* The same sum as in worker/policies.py: 2.2 s to prepare messages, a publish, then a backoff or a revoke. */}}
{{- $longest := addf 2.2 (mulf 3 $publish) (maxf 5 (addf 2 (mulf 4 $publish))) }}
{{- $poll := divf (include "filing-clerk.property" (list $kafka "consumer" "max.poll.interval.ms" 300000) | float64) 1000 }}
{{- if ge $longest $poll }}
- config.kafka.publish_timeout_s keeps a worker from polling for {{ $longest }} s, but the group takes its partitions after {{ $poll }} s (config.kafka.consumer, max.poll.interval.ms): lower publish_timeout_s, or raise max.poll.interval.ms
{{- end }}
{{- end -}}

{{/* Problems of a login by token: no source of tokens, or one for another mechanism. */}}
{{- define "filing-clerk.tokenProblems" -}}
{{- $kafka := .Values.config.kafka | default dict -}}
{{- $mechanism := $kafka.sasl_mechanism | default "" -}}
{{- if and $kafka.sasl_token_callback (ne $mechanism "OAUTHBEARER") }}
- config.kafka.sasl_token_callback is set, but config.kafka.sasl_mechanism is {{ $mechanism | default "empty" }}: set it to OAUTHBEARER
{{- end }}
{{- $ways := list -}}
{{- range list "client" "consumer" "producer" -}}
{{- range $name, $_ := get $kafka . | default dict -}}
{{- if hasPrefix "sasl.oauthbearer." $name -}}{{- $ways = append $ways $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $mechanism "OAUTHBEARER") (not $kafka.sasl_token_callback) (not $ways) (not (hasKey .Values.secretEnv "CLERK_KAFKA__CLIENT")) }}
- config.kafka.sasl_mechanism is OAUTHBEARER, but there is no source of tokens: name a function in config.kafka.sasl_token_callback, or set sasl.oauthbearer.* in config.kafka.client
{{- end }}
{{- end -}}
