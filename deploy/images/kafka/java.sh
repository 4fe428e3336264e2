#!/bin/bash
# java.sh CLASS ARG...: runs a class of Kafka in place of this shell. The links beside it (kafka-topics.sh and so on) stand
# for their class.
set -euo pipefail
home=/opt/kafka
case $(basename "$0") in
  kafka-acls.sh)                set -- org.apache.kafka.tools.AclCommand "$@" ;;
  kafka-broker-api-versions.sh) set -- org.apache.kafka.tools.BrokerApiVersionsCommand "$@" ;;
  kafka-cluster.sh)             set -- org.apache.kafka.tools.ClusterTool "$@" ;;
  kafka-configs.sh)             set -- kafka.admin.ConfigCommand "$@" ;;
  kafka-console-consumer.sh)    set -- org.apache.kafka.tools.consumer.ConsoleConsumer "$@" ;;
  kafka-console-producer.sh)    set -- org.apache.kafka.tools.ConsoleProducer "$@" ;;
  kafka-consumer-groups.sh)     set -- org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@" ;;
  kafka-dump-log.sh)            set -- kafka.tools.DumpLogSegments "$@" ;;
  kafka-leader-election.sh)     set -- org.apache.kafka.tools.LeaderElectionCommand "$@" ;;
  kafka-metadata-quorum.sh)     set -- org.apache.kafka.tools.MetadataQuorumCommand "$@" ;;
  kafka-producer-perf-test.sh)  set -- org.apache.kafka.tools.ProducerPerformance "$@" ;;
  kafka-reassign-partitions.sh) set -- org.apache.kafka.tools.reassign.ReassignPartitionsCommand "$@" ;;
  kafka-storage.sh)             set -- kafka.tools.StorageTool "$@" ;;
  kafka-topics.sh)              set -- org.apache.kafka.tools.TopicCommand "$@" ;;
  kafka-transactions.sh)        set -- org.apache.kafka.tools.TransactionsCommand "$@" ;;
esac
log4j=$home/config/log4j2.yaml
[[ $1 == kafka.Kafka ]] || export KAFKA_LOG4J_ROOT_LOGLEVEL=${KAFKA_TOOLS_LOG4J_LOGLEVEL:-WARN}
# shellcheck disable=SC2086 # the variables hold several options each
exec java -server ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} \
  ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true} \
  ${KAFKA_CDS_OPTS:--XX:SharedArchiveFile=$home/kafka.jsa -Xshare:auto} \
  ${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=$log4j} ${KAFKA_OPTS:-} ${KAFKA_JMX_OPTS:-} \
  -cp "$home/libs/*" "$@"
