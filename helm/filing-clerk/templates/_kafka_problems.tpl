{{/* What is wrong with the settings of Kafka: what a worker would refuse when it starts, as far as values show it. */}}

{{/* Whether a topic is read: (list inputs topic). Inputs that begin with ^ are patterns. Empty: it is not. */}}
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
{{- range concat $results $apart }}
{{- $setting := first . }}
{{- $topic := last . }}
{{- if $topic }}
{{- if not (regexMatch "^[A-Za-z0-9._-]{1,249}$" $topic) }}
- {{ $setting }}: {{ $topic | quote }} is not the name of a topic: use letters, digits, ".", "_" and "-", at most 249
{{- end }}
{{- if include "filing-clerk.isInput" (list $inputs $topic) }}
- {{ $setting }}: {{ $topic }} is read too (config.kafka.input_topics), and workers would feed themselves: name another, or narrow the pattern
{{- end }}
{{- end }}
{{- end }}
{{- range list (index $results 0) (index $results 1) }}
{{- if eq (last .) $kafka.dead_letter_topic }}
- config.kafka.dead_letter_topic and {{ first . }} are both {{ last . }}, which is for labels: dead letters need their own
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

{{/* Properties that are not the user's: (list "config.kafka" settings-of-kafka names). */}}
{{- define "filing-clerk.reservedProperties" -}}
{{- $path := index . 0 -}}
{{- $kafka := index . 1 -}}
{{- $names := index . 2 -}}
{{- range $place := list "client" "consumer" "producer" }}
{{- range $name, $_ := get $kafka $place | default dict }}
{{- if has $name $names }}
- {{ $path }}.{{ $place }}.{{ $name }} cannot be set: it is the program's own, or a setting of another name
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
- {{ $at }} would be the same in every pod, and workers of one name take the group's place from each other: leave it out
{{- end }}
{{- if and (eq $name "auto.offset.reset") (has $text (list "latest" "largest" "end")) }}
- {{ $at }} is {{ $text }}, and a new partition would lose what lies before its end: leave it at earliest
{{- end }}
{{- if and (eq $name "auto.offset.reset") (eq $text "error") $kafka.retry_topic }}
- {{ $at }} is error and config.kafka.retry_topic is set: a message that waits would stop the worker that reads it first; leave it at earliest
{{- end }}
{{- if and (eq $name "isolation.level") $once (ne $text "read_committed") }}
- {{ $at }} is {{ $text }}: exactly_once needs read_committed
{{- end }}
{{- if and (has $name (list "acks" "request.required.acks")) (not (has $text (list "all" "-1"))) }}
- {{ $at }} is {{ $text }}: a result that fewer replicas have may be lost with them; it must be all
{{- end }}
{{- if and (has $name (list "max.in.flight" "max.in.flight.requests.per.connection")) (gt (float64 $value) 5.0) }}
- {{ $at }} is {{ $value }}: at most 5, or a retry may double results
{{- end }}
{{- if and (has $name (list "retries" "message.send.max.retries")) (lt (float64 $value) 1.0) }}
- {{ $at }} is {{ $value }}: at least 1
{{- end }}
{{- end }}
{{- end }}

{{- $publish := $kafka.publish_timeout_s | default 10 | float64 }}
{{- $transaction := divf (include "filing-clerk.property" (list $kafka "producer" "transaction.timeout.ms" 15000) | float64) 1000 }}
{{- if and $once (gt $publish $transaction) }}
- config.kafka.publish_timeout_s is {{ $publish }} and a broker ends a transaction after {{ $transaction }} s (config.kafka.producer, transaction.timeout.ms): keep the first below
{{- end }}
{{- /* As worker/policies.py has it: 2.2 s to prepare messages, a publish, then a backoff or a revoke. */}}
{{- $longest := addf 2.2 (mulf 3 $publish) (maxf 5 (addf 2 (mulf 4 $publish))) }}
{{- $poll := divf (include "filing-clerk.property" (list $kafka "consumer" "max.poll.interval.ms" 300000) | float64) 1000 }}
{{- if ge $longest $poll }}
- config.kafka.publish_timeout_s keeps a worker from polling for {{ $longest }} s, and the group takes its partitions after {{ $poll }} s (config.kafka.consumer, max.poll.interval.ms): lower the first, or raise the second
{{- end }}
{{- end -}}

{{/* A login by token: where one comes from. */}}
{{- define "filing-clerk.tokenProblems" -}}
{{- $kafka := .Values.config.kafka | default dict -}}
{{- $mechanism := $kafka.sasl_mechanism | default "" -}}
{{- if and $kafka.sasl_token_callback (ne $mechanism "OAUTHBEARER") }}
- config.kafka.sasl_token_callback is given and config.kafka.sasl_mechanism is {{ $mechanism | default "empty" }}: set it to OAUTHBEARER
{{- end }}
{{- $ways := list -}}
{{- range list "client" "consumer" "producer" -}}
{{- range $name, $_ := get $kafka . | default dict -}}
{{- if hasPrefix "sasl.oauthbearer." $name -}}{{- $ways = append $ways $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $mechanism "OAUTHBEARER") (not $kafka.sasl_token_callback) (not $ways) (not (hasKey .Values.secretEnv "CLERK_KAFKA__CLIENT")) }}
- config.kafka.sasl_mechanism is OAUTHBEARER, and nothing says where a token comes from: name a function in config.kafka.sasl_token_callback, or set sasl.oauthbearer.* in config.kafka.client
{{- end }}
{{- end -}}
