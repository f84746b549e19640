#!/usr/bin/env bash
# Makes on Azure what the pipelines run on; a second run makes what is missing.
#   provision.sh [--dry-run] [--github-app-key FILE.pem] VALUES     (VALUES: a copy of example.env)
# --dry-run prints the commands and runs none. --github-app-key moves the private key of the GitHub App into Key Vault.
set -euo pipefail

fail() {
  printf 'provision.sh: error: %s\n' "$*" >&2
  exit 1
}

is_dry=false
key_file=''
values=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) is_dry=true ;;
    --github-app-key) shift && key_file=${1:?names the .pem file that GitHub made} ;;
    --help | -h) sed -n '2,4s/^# *//p' "$0" && exit ;;
    -*) fail "$1 is no flag of it; --help tells of them" ;;
    *) [ -z "$values" ] || fail "one file of values, not two: $values, $1"; values=$1 ;;
  esac
  shift
done
[ -n "$values" ] || fail 'name the file of values: a copy of scripts/provision/example.env'
[ -f "$values" ] || fail "$values is not there; copy scripts/provision/example.env"
[ -z "$key_file" ] || [ -f "$key_file" ] || fail "$key_file is not there; download the app's private key from GitHub"

# The values: read, never executed, and held to the form that Azure asks for.
uuid='[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
in_group="/subscriptions/$uuid/resourceGroups/[A-Za-z0-9_.-]+/providers"
known="
AZURE_SUBSCRIPTION_ID $uuid
AZURE_RESOURCE_GROUP [A-Za-z0-9_.-]{0,89}[A-Za-z0-9_-]
AZURE_LOCATION [a-z]+[0-9]?
AZURE_ML_HUB [A-Za-z0-9][A-Za-z0-9_-]{2,32}
AZURE_ML_WORKSPACE [A-Za-z0-9][A-Za-z0-9_-]{2,32}
AZURE_ML_REGISTRY [A-Za-z0-9][A-Za-z0-9_-]{2,32}
AZURE_ML_ENDPOINT [a-z][a-z0-9-]{1,30}[a-z0-9]
AZURE_STORAGE_ACCOUNT [a-z0-9]{3,24}
AZURE_DATA_STORAGE_ACCOUNT [a-z0-9]{3,24}
AZURE_CONTAINER_REGISTRY [A-Za-z0-9]{5,50}
AZURE_KEY_VAULT [A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]
GITHUB_REPOSITORY [A-Za-z0-9-]+/[A-Za-z0-9_.-]+
GITHUB_ENVIRONMENT [A-Za-z0-9_-]+
AZURE_OPENAI_ID ($in_group/Microsoft.CognitiveServices/accounts/[A-Za-z0-9-]+)?
AZURE_SEARCH_ID ($in_group/Microsoft.Search/searchServices/[a-z0-9-]+)?
DATA_SCIENTISTS_GROUP_ID ($uuid)?
"
while read -r name _; do
  [ -z "$name" ] || printf -v "$name" ''
done <<<"$known"
number=0
while IFS= read -r line || [ -n "$line" ]; do
  number=$((number + 1))
  line=${line%$'\r'}
  case $line in '' | '#'*) continue ;; esac
  name=${line%%=*}
  [[ $line == *=* && $known == *$'\n'"$name "* ]] || fail "$values:$number: write NAME=VALUE with a name of example.env"
  printf -v "$name" '%s' "${line#*=}"
done <"$values"
while read -r name form; do
  [[ -z $name || ${!name} =~ ^($form)$ ]] || fail "$values: $name is '${!name:0:80}'; see example.env for its form"
done <<<"$known"
$is_dry || [ "$GITHUB_REPOSITORY" != OWNER/REPOSITORY ] || fail "$values: GITHUB_REPOSITORY is that of the example: \
workflows of a stranger's repository could sign in; name yours"

[ -z "$key_file" ] || key_file="$(cd "$(dirname "$key_file")" && pwd)/$(basename "$key_file")"
cd "$(dirname "$0")/../.."
subscription=(--subscription "$AZURE_SUBSCRIPTION_ID")
group=(--resource-group "$AZURE_RESOURCE_GROUP" "${subscription[@]}")
workspace=(--workspace-name "$AZURE_ML_WORKSPACE" "${group[@]}")

# One call of az: what it answers in $said, what it complains about in $log.
call() {
  status=0
  said="$(az "$@" --only-show-errors 2>"$log")" || status=$?
  return "$status"
}

refused() {
  fail "$({ grep -m 1 '^ERROR' "$log" || tail -n 1 "$log"; } | cut -c -400) [exit code $status of: $(shown az "$@")]"
}

shown() {
  local word line=''
  for word; do
    case $word in *[!A-Za-z0-9_./:=@-]* | '') word=\'${word//\'/\'\\\'\'}\' ;; esac
    line+=" $word"
  done
  printf '%s\n' "${line# }"
}

run() {
  shown az "$@"
  $is_dry || call "$@" --output none || refused "$@"
}

# ensure VERB 'KIND OF RESOURCE' WHICH... -- HOW...: makes it by that verb where `show` does not find it.
ensure() {
  local verb=$1 kind which=()
  read -ra kind <<<"$2"
  shift 2
  while [ "$1" != -- ]; do which+=("$1") && shift; done
  shift
  if $is_dry; then
    printf '%s ||\n  ' "$(shown az "${kind[@]}" show "${which[@]}")"
  elif call "${kind[@]}" show "${which[@]}" --output none; then
    printf '# there: %s\n' "$(shown az "${kind[@]}" show "${which[@]}")"
    return
  elif [ "$status" -ne 3 ] && ! grep -Eq '\((Resource|ResourceGroup|Key)?NotFound\)|was not found' "$log"; then
    refused "${kind[@]}" show "${which[@]}"
  fi
  run "${kind[@]}" "$verb" "${which[@]}" "$@"
}

# What a query answers; before anything is made, a name for it.
asked() {
  local name=$1
  shift
  if $is_dry; then
    said="<principal id of $name>"
  else
    call "$@" --output tsv || refused "$@"
    [[ $said =~ ^$uuid$ ]] || fail "no principal id of $name in the answer to: $(shown az "$@")"
  fi
}

# grant TO ROLE SCOPE [TYPE]: a role that is there already is left as it is.
grant() {
  run role assignment create --assignee-object-id "$1" --assignee-principal-type "${4:-ServicePrincipal}" \
    --role "$2" --scope "$3" "${subscription[@]}"
}

# reach RULE RESOURCE_ID PART: a private endpoint from the network of the hub, which approves it itself.
reach() {
  grant "$hub" 'Azure AI Enterprise Network Connection Approver' "$2"
  ensure set 'ml workspace outbound-rule' --rule "$1" --workspace-name "$AZURE_ML_HUB" "${group[@]}" -- \
    --type private_endpoint --service-resource-id "$2" --subresource-target "$3" --spark-enabled false
}

if ! $is_dry; then
  command -v az >/dev/null || fail 'az was not found; install the Azure CLI, then: az extension add --name ml'
  log="$(mktemp)"
  trap 'rm -f "$log"' EXIT
  call account show "${subscription[@]}" || refused account show "${subscription[@]}"
  call extension show --name ml || fail 'the ml extension is missing; run: az extension add --name ml'
fi

all="/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/$AZURE_RESOURCE_GROUP"
storage="$all/providers/Microsoft.Storage/storageAccounts/$AZURE_STORAGE_ACCOUNT"
data="$all/providers/Microsoft.Storage/storageAccounts/$AZURE_DATA_STORAGE_ACCOUNT"
images="$all/providers/Microsoft.ContainerRegistry/registries/$AZURE_CONTAINER_REGISTRY"
vault="$all/providers/Microsoft.KeyVault/vaults/$AZURE_KEY_VAULT"
learning="$all/providers/Microsoft.MachineLearningServices"
project="$learning/workspaces/$AZURE_ML_WORKSPACE"
registry="$learning/registries/$AZURE_ML_REGISTRY"
jobs_id="$all/providers/Microsoft.ManagedIdentity/userAssignedIdentities/slm-jobs"
yaml=scripts/provision

echo '# Identities: of the jobs, and of the workflows on GitHub'
ensure create group --name "$AZURE_RESOURCE_GROUP" "${subscription[@]}" -- --location "$AZURE_LOCATION"
for name in slm-jobs slm-github; do
  ensure create identity --name "$name" "${group[@]}" -- --location "$AZURE_LOCATION"
done
ensure create 'identity federated-credential' \
  --name "github-$GITHUB_ENVIRONMENT" --identity-name slm-github "${group[@]}" -- \
  --issuer https://token.actions.githubusercontent.com --audiences api://AzureADTokenExchange \
  --subject "repo:$GITHUB_REPOSITORY:environment:$GITHUB_ENVIRONMENT"
asked slm-jobs identity show --name slm-jobs "${group[@]}" --query principalId
jobs=$said
asked slm-github identity show --name slm-github "${group[@]}" --query principalId
github=$said

echo '# Storage, images and keys'
locked=(--sku Standard_LRS --allow-shared-key-access false --allow-blob-public-access false --min-tls-version TLS1_2)
ensure create 'storage account' --name "$AZURE_STORAGE_ACCOUNT" "${group[@]}" -- \
  --location "$AZURE_LOCATION" "${locked[@]}"
ensure create 'storage account' --name "$AZURE_DATA_STORAGE_ACCOUNT" "${group[@]}" -- \
  --location "$AZURE_LOCATION" "${locked[@]}" --enable-hierarchical-namespace true
for name in raw-data data-lake; do
  ensure create 'storage container-rm' \
    --name "$name" --storage-account "$AZURE_DATA_STORAGE_ACCOUNT" "${group[@]}" --
done
ensure create acr --name "$AZURE_CONTAINER_REGISTRY" "${group[@]}" -- \
  --location "$AZURE_LOCATION" --sku Premium --admin-enabled false
ensure create keyvault --name "$AZURE_KEY_VAULT" "${group[@]}" -- \
  --location "$AZURE_LOCATION" --enable-rbac-authorization true --enable-purge-protection true
if [ -n "$key_file" ]; then
  ensure import 'keyvault key' --name github-app --vault-name "$AZURE_KEY_VAULT" "${subscription[@]}" -- \
    --pem-file "$key_file" --ops sign
fi

echo '# Hub and its network, project, registry'
ensure create 'ml workspace' --name "$AZURE_ML_HUB" "${group[@]}" -- --file "$yaml/hub.yml" \
  --location "$AZURE_LOCATION" --set "storage_account=$storage" "container_registry=$images"
asked "$AZURE_ML_HUB" ml workspace show --name "$AZURE_ML_HUB" "${group[@]}" --query identity.principal_id
hub=$said
reach data-blob "$data" blob
reach data-lake "$data" dfs
reach key-vault "$vault" vault
[ -z "$AZURE_OPENAI_ID" ] || reach azure-openai "$AZURE_OPENAI_ID" account
[ -z "$AZURE_SEARCH_ID" ] || reach ai-search "$AZURE_SEARCH_ID" searchService
ensure create 'ml workspace' --name "$AZURE_ML_WORKSPACE" "${group[@]}" -- --file "$yaml/project.yml" \
  --location "$AZURE_LOCATION" --set "hub_id=$learning/workspaces/$AZURE_ML_HUB"
ensure create 'ml registry' --name "$AZURE_ML_REGISTRY" "${group[@]}" -- --file "$yaml/registry.yml" \
  --set "location=$AZURE_LOCATION" "replication_locations[0].location=$AZURE_LOCATION"

echo '# Roles: of the jobs'
grant "$jobs" 'AzureML Data Scientist' "$project"
grant "$jobs" Reader "$registry"
grant "$jobs" 'Storage Blob Data Contributor' "$storage"
grant "$jobs" 'Storage Blob Data Reader' "$data"
grant "$jobs" AcrPull "$images"
grant "$jobs" 'Monitoring Contributor' "$all"
grant "$jobs" 'Key Vault Crypto User' "$vault/keys/github-app"
grant "$jobs" 'Key Vault Secrets User' "$vault/secrets/pii-key"
[ -z "$AZURE_OPENAI_ID" ] || grant "$jobs" 'Cognitive Services OpenAI User' "$AZURE_OPENAI_ID"
[ -z "$AZURE_SEARCH_ID" ] || grant "$jobs" 'Search Index Data Reader' "$AZURE_SEARCH_ID"
echo '# Roles: of the workflows, and of those who submit jobs by hand'
grant "$github" 'AzureML Data Scientist' "$project"
grant "$github" 'AzureML Registry User' "$registry"
grant "$github" 'Storage Blob Data Contributor' "$storage"
if [ -n "$DATA_SCIENTISTS_GROUP_ID" ]; then
  grant "$DATA_SCIENTISTS_GROUP_ID" 'AzureML Data Scientist' "$project" Group
  grant "$DATA_SCIENTISTS_GROUP_ID" Reader "$registry" Group
  grant "$DATA_SCIENTISTS_GROUP_ID" 'Storage Blob Data Contributor' "$storage" Group
fi

echo '# What jobs run on, read from and ask; these are brought up to date each time'
for name in cpu-cluster gpu-cluster gpu-cluster-8x; do
  run ml compute create --file "$yaml/compute/$name.yml" "${workspace[@]}" \
    --location "$AZURE_LOCATION" --set "identity.user_assigned_identities[0].resource_id=$jobs_id"
done
for name in raw-data data-lake; do
  run ml datastore create --file "$yaml/datastores/$name.yml" "${workspace[@]}" \
    --set "account_name=$AZURE_DATA_STORAGE_ACCOUNT"
done
if [ -n "$AZURE_OPENAI_ID" ]; then
  run ml connection create --file "$yaml/connections/azure-openai.yml" "${workspace[@]}" \
    --set "azure_endpoint=https://${AZURE_OPENAI_ID##*/}.openai.azure.com/" "open_ai_resource_id=$AZURE_OPENAI_ID"
fi
if [ -n "$AZURE_SEARCH_ID" ]; then
  run ml connection create --file "$yaml/connections/ai-search.yml" "${workspace[@]}" \
    --set "endpoint=https://${AZURE_SEARCH_ID##*/}.search.windows.net/"
fi
ensure create 'ml online-endpoint' --name "$AZURE_ML_ENDPOINT" "${workspace[@]}" -- \
  --file components/deploy_endpoint/specs/endpoint.yml
