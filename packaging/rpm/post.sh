#include service.sh

bitrix_node_configured
# 1: this is the first version here.
[ "$1" -lt 2 ] || bitrix_node_upgraded
