//! The operations of S3 that are offered, each a line that hands on. What is not here answers `NotImplemented`.

use async_trait::async_trait;
use hyper::StatusCode;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::Endpoint;
use super::access::identity;
use super::attributes::{check_acl, refuse};
use super::errors::{custom, not_supported};
use super::listing::owner;
use super::names::existing_path;

type Answer<T> = S3Result<S3Response<T>>;

fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

/// The owner may do everything; there are no others.
fn own_grants() -> Vec<Grant> {
    let grantee = Grantee {
        display_name: owner().display_name,
        email_address: None,
        id: owner().id,
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    vec![Grant { grantee: Some(grantee), permission: Some(Permission::from_static(Permission::FULL_CONTROL)) }]
}

#[async_trait]
impl S3 for Endpoint {
    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let mut buckets = self.buckets_of(identity(&req)?).await?;
        let prefix = req.input.prefix.unwrap_or_default();
        buckets.retain(|b| b.name.as_ref().is_some_and(|n| n.starts_with(&prefix)));
        answer(ListBucketsOutput { buckets: Some(buckets), owner: Some(owner()), ..Default::default() })
    }

    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        check_acl(req.input.acl.as_ref().map(|a| a.as_str()))?;
        refuse(&[(req.input.object_lock_enabled_for_bucket == Some(true), "object lock")])?;
        self.make_bucket(&req.input.bucket).await?;
        answer(CreateBucketOutput { location: Some(format!("/{}", req.input.bucket)) })
    }

    async fn delete_bucket(&self, req: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        self.remove_bucket(&req.input.bucket).await?;
        answer(DeleteBucketOutput::default())
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.require_bucket(&req.input.bucket).await?;
        answer(HeadBucketOutput::default())
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
        self.require_bucket(&req.input.bucket).await?;
        answer(GetBucketLocationOutput::default())
    }

    async fn get_bucket_versioning(&self, req: S3Request<GetBucketVersioningInput>) -> Answer<GetBucketVersioningOutput> {
        self.require_bucket(&req.input.bucket).await?;
        answer(GetBucketVersioningOutput::default())
    }

    async fn get_bucket_acl(&self, req: S3Request<GetBucketAclInput>) -> Answer<GetBucketAclOutput> {
        self.require_bucket(&req.input.bucket).await?;
        answer(GetBucketAclOutput { grants: Some(own_grants()), owner: Some(owner()) })
    }

    async fn get_bucket_tagging(&self, req: S3Request<GetBucketTaggingInput>) -> Answer<GetBucketTaggingOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(NoSuchTagSet))
    }

    async fn get_bucket_policy(&self, req: S3Request<GetBucketPolicyInput>) -> Answer<GetBucketPolicyOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(NoSuchBucketPolicy))
    }

    async fn get_bucket_cors(&self, req: S3Request<GetBucketCorsInput>) -> Answer<GetBucketCorsOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(NoSuchCORSConfiguration))
    }

    async fn get_bucket_encryption(&self, req: S3Request<GetBucketEncryptionInput>) -> Answer<GetBucketEncryptionOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(ServerSideEncryptionConfigurationNotFoundError))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> Answer<GetBucketLifecycleConfigurationOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(NoSuchLifecycleConfiguration))
    }

    async fn get_bucket_website(&self, req: S3Request<GetBucketWebsiteInput>) -> Answer<GetBucketWebsiteOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(NoSuchWebsiteConfiguration))
    }

    async fn get_bucket_replication(&self, req: S3Request<GetBucketReplicationInput>) -> Answer<GetBucketReplicationOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(ReplicationConfigurationNotFoundError))
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> Answer<GetObjectLockConfigurationOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(s3_error!(ObjectLockConfigurationNotFoundError))
    }

    async fn get_public_access_block(&self, req: S3Request<GetPublicAccessBlockInput>) -> Answer<GetPublicAccessBlockOutput> {
        self.require_bucket(&req.input.bucket).await?;
        Err(custom("NoSuchPublicAccessBlockConfiguration", StatusCode::NOT_FOUND, "nothing is public here, so nothing is blocked"))
    }

    async fn get_object_acl(&self, req: S3Request<GetObjectAclInput>) -> Answer<GetObjectAclOutput> {
        let path = existing_path(&req.input.bucket, &req.input.key)?;
        self.open(&req.input.bucket, &path, None, true).await?;
        answer(GetObjectAclOutput { grants: Some(own_grants()), owner: Some(owner()), ..Default::default() })
    }

    async fn get_object_tagging(&self, req: S3Request<GetObjectTaggingInput>) -> Answer<GetObjectTaggingOutput> {
        let path = existing_path(&req.input.bucket, &req.input.key)?;
        self.open(&req.input.bucket, &path, None, true).await?;
        answer(GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None })
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        answer(self.get(req.input).await?)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let ranged = req.input.range.is_some();
        let output = self.head(req.input).await?;
        let status = if ranged { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        Ok(S3Response::with_status(output, status))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        answer(self.put(req).await?)
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        answer(self.copy(req).await?)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.delete(&req.input).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        answer(self.delete_many(&req).await?)
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        answer(self.list_v1(req.input).await?)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        answer(self.list_v2(req.input).await?)
    }

    async fn create_multipart_upload(&self, req: S3Request<CreateMultipartUploadInput>) -> Answer<CreateMultipartUploadOutput> {
        answer(self.create_upload(req.input).await?)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        answer(Endpoint::upload_part(self, req).await?)
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        answer(Endpoint::upload_part_copy(self, req).await?)
    }

    async fn complete_multipart_upload(&self, req: S3Request<CompleteMultipartUploadInput>) -> Answer<CompleteMultipartUploadOutput> {
        answer(self.complete_upload(req.input).await?)
    }

    async fn abort_multipart_upload(&self, req: S3Request<AbortMultipartUploadInput>) -> Answer<AbortMultipartUploadOutput> {
        self.abort_upload(&req.input).await?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        answer(Endpoint::list_parts(self, req.input).await?)
    }

    async fn list_multipart_uploads(&self, req: S3Request<ListMultipartUploadsInput>) -> Answer<ListMultipartUploadsOutput> {
        answer(self.list_uploads(req.input).await?)
    }

    async fn post_object(&self, _req: S3Request<PostObjectInput>) -> Answer<PostObjectOutput> {
        Err(not_supported("an upload by browser form"))
    }
}
