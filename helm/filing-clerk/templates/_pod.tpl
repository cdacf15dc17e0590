{{/* Parts that the pods share. */}}

{{/* Fields that every pod has. No service account token by default, and no environment variables for Services: the variables of a
     Service named clerk-... would be read as settings. */}}
{{- define "filing-clerk.podBasics" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automountToken | default false }}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSpec }}
{{ toYaml . }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The node selector of a pod: (list . selector), plus the images' architecture. On another one, containers fail with
     "exec format error". */}}
{{- define "filing-clerk.nodeSelector" -}}
{{- $arch := (index . 0).Values.arch -}}
{{- with merge (dict) (index . 1) (ternary (dict "kubernetes.io/arch" $arch) dict (not (empty $arch))) -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Variables from Secrets: a map of NAME to {name, key}. */}}
{{- define "filing-clerk.secretEnv" -}}
{{- range $name, $from := . }}
- name: {{ $name | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.name | quote }}
      key: {{ $from.key | quote }}
{{- end }}
{{- end -}}

{{- define "filing-clerk.plainEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name | quote }}
  {{- if kindIs "map" $value }}
  valueFrom:
    {{- toYaml $value | nindent 4 }}
  {{- else }}
  value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Environment variables that identify a pod to Kafka. */}}
{{- define "filing-clerk.authEnv" -}}
{{- $auth := dict -}}
{{- with .Values.auth.sasl }}
{{- if .secret }}
{{- $_ := set $auth "CLERK_KAFKA__SASL_USERNAME" (dict "name" .secret "key" .usernameKey) -}}
{{- if not .passwordAsFile }}
{{- $_ := set $auth "CLERK_KAFKA__SASL_PASSWORD" (dict "name" .secret "key" .passwordKey) -}}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.auth.tls }}
{{- if and .clientSecret .privateKeyPasswordKey }}
{{- $_ := set $auth "CLERK_KAFKA__SSL_KEY_PASSWORD" (dict "name" .clientSecret "key" .privateKeyPasswordKey) -}}
{{- end }}
{{- end }}
{{- include "filing-clerk.secretEnv" (merge $auth .Values.secretEnv) }}
{{- end -}}

{{/* Volumes of a pod that connects to Kafka (worker.toml, certificates): (list . name-of-config-map). */}}
{{- define "filing-clerk.kafkaVolumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap:
    name: {{ index . 1 | quote }}
{{- with $root.Values.auth.sasl }}
{{- if and .secret .passwordAsFile }}
- name: kafka-login
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .passwordKey | quote }}
        path: password
{{- end }}
{{- end }}
{{- with $root.Values.auth.tls }}
{{- if .caSecret }}
- name: kafka-ca
  secret:
    secretName: {{ .caSecret | quote }}
    items:
      - key: {{ .caKey | quote }}
        path: {{ .caKey | quote }}
{{- else if .caConfigMap }}
- name: kafka-ca
  configMap:
    name: {{ .caConfigMap | quote }}
    items:
      - key: {{ .caKey | quote }}
        path: {{ .caKey | quote }}
{{- end }}
{{- if .clientSecret }}
- name: kafka-client
  secret:
    secretName: {{ .clientSecret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .certificateKey | quote }}
        path: {{ .certificateKey | quote }}
      - key: {{ .privateKeyKey | quote }}
        path: {{ .privateKeyKey | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "filing-clerk.kafkaMounts" -}}
- name: config
  mountPath: /etc/filing-clerk
  readOnly: true
{{- with .Values.auth.sasl }}
{{- if and .secret .passwordAsFile }}
- name: kafka-login
  mountPath: /etc/kafka/login
  readOnly: true
{{- end }}
{{- end }}
{{- with .Values.auth.tls }}
{{- if or .caSecret .caConfigMap }}
- name: kafka-ca
  mountPath: /etc/kafka/ca
  readOnly: true
{{- end }}
{{- if .clientSecret }}
- name: kafka-client
  mountPath: /etc/kafka/client
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of the base model and the adapters, if they are mounted. */}}
{{- define "filing-clerk.modelVolumes" -}}
{{- range $name := list "models" "adapters" }}
{{- $store := index $.Values.storage $name }}
{{- if and $store.mountPath (or $store.volume $store.claim.create) }}
{{ include "filing-clerk.storeVolume" (list $ $name) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* One of these volumes: (list . "adapters"). */}}
{{- define "filing-clerk.storeVolume" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
- name: {{ $name }}
  {{- with (index $root.Values.storage $name).volume }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ include "filing-clerk.part" (list $root $name) | quote }}
  {{- end }}
{{- end -}}

{{/* Their mounts: (list . (list "adapters")), with a list of the writable ones. */}}
{{- define "filing-clerk.modelMounts" -}}
{{- $root := index . 0 -}}
{{- $written := index . 1 -}}
{{- range $name := list "models" "adapters" }}
{{- $store := index $root.Values.storage $name }}
{{- if and $store.mountPath (or $store.volume $store.claim.create) }}
- name: {{ $name }}
  mountPath: {{ $store.mountPath | quote }}
  {{- with $store.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: {{ not (has $name $written) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Resources with GPUs: (list resources count resource-name). */}}
{{- define "filing-clerk.resources" -}}
{{- $resources := deepCopy (index . 0 | default dict) -}}
{{- $count := index . 1 | int -}}
{{- if $count -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits (index . 2) (toString $count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "filing-clerk.probe" -}}
{{- $root := index . 0 -}}
httpGet:
  path: {{ index . 1 | quote }}
  port: http
periodSeconds: {{ (index . 2).periodSeconds | int }}
timeoutSeconds: {{ (index . 2).timeoutSeconds | int }}
{{- end -}}

{{/* 1 or "25%". */}}
{{- define "filing-clerk.countOrShare" -}}
{{- if kindIs "string" . -}}{{- . | quote -}}{{- else -}}{{- int . -}}{{- end -}}
{{- end -}}
