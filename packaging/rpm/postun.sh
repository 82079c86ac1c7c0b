#include service.sh

bitrix_node_gone
