{{/* Names and labels. */}}

{{/* The release's name plus the chart's, unless it contains it. Begins with a letter, as Services must. */}}
{{- define "filing-clerk.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- if regexMatch "^[^a-z]" $name -}}
{{- $name = printf "r%s" $name -}}
{{- end -}}
{{- end -}}
{{- $name | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Namespace of all objects. */}}
{{- define "filing-clerk.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* The name of a part: (list . "topics"). At most 52 characters, the limit of a CronJob. */}}
{{- define "filing-clerk.part" -}}
{{- $suffix := index . 1 -}}
{{- printf "%s-%s" (include "filing-clerk.fullname" (index . 0) | trunc (int (sub 51 (len $suffix))) | trimSuffix "-") $suffix -}}
{{- end -}}

{{/* Labels that select the pods of a part: (list . "worker"). They never change, because a Deployment's selector cannot. */}}
{{- define "filing-clerk.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name | quote }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- end -}}

{{- define "filing-clerk.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "filing-clerk.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: (list . "topics" further). The selecting labels plus those in the values, and no chart version: a new
     chart alone must not restart workers. */}}
{{- define "filing-clerk.podLabels" -}}
{{ include "filing-clerk.selector" . }}
{{- with merge (dict) (index . 2) (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The URL of the adapters' store, if it is in a bucket. */}}
{{- define "filing-clerk.bucket" -}}
{{- with ((.Values.config | default dict).model | default dict).adapter }}{{ if regexMatch "^(s3|gs|az)://[^/]" . }}{{ . }}{{ end }}{{ end }}
{{- end -}}

{{/* What a pod needs to write to it: the account that the cloud knows, and the variables of the workers. */}}
{{- define "filing-clerk.bucketAccount" -}}
{{- if include "filing-clerk.bucket" . -}}
serviceAccountName: {{ include "filing-clerk.serviceAccountName" . | quote }}
{{- end -}}
{{- end -}}
{{- define "filing-clerk.bucketEnv" -}}
{{- if include "filing-clerk.bucket" . -}}
{{- include "filing-clerk.secretEnv" .Values.secretEnv }}
{{- include "filing-clerk.plainEnv" .Values.env }}
{{- end -}}
{{- end -}}

{{- define "filing-clerk.bucketEnvFrom" -}}
{{- if and .Values.envFrom (include "filing-clerk.bucket" .) -}}
envFrom:
  {{- toYaml .Values.envFrom | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "filing-clerk.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "filing-clerk.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The topics job's own service account: it runs before the release's account exists. */}}
{{- define "filing-clerk.topicsAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- include "filing-clerk.part" (list . "topics") -}}
{{- else -}}
{{- include "filing-clerk.serviceAccountName" . -}}
{{- end -}}
{{- end -}}

{{/* A full image name: (list . .Values.image). */}}
{{- define "filing-clerk.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The image for small tasks: topics.image, which may be a slim one, or the worker's. */}}
{{- define "filing-clerk.toolsImage" -}}
{{- .Values.topics.image | default (include "filing-clerk.image" (list . .Values.image)) -}}
{{- end -}}

{{/* The input topic if there is exactly one and it is not a pattern; else empty. */}}
{{- define "filing-clerk.onlyInput" -}}
{{- $inputs := (include "filing-clerk.config" . | fromJson).kafka.input_topics -}}
{{- if eq (len $inputs) 1 -}}
{{- if not (hasPrefix "^" (first $inputs)) -}}
{{- first $inputs -}}
{{- end -}}
{{- end -}}
{{- end -}}
