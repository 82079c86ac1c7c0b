#include service.sh

# 0: no version is left.
[ "$1" -gt 0 ] || bitrix_node_stopped
